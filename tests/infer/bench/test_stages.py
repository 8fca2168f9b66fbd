"""Timings of calls, and the videos that are drawn for them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.bench import stages
from hbi_infer.bench.stages import Call, draw_videos, measure
from hbi_infer.options import FrameSampling
from hbi_infer.video.reader import probe


def test_percentiles_and_throughput_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: calls take 1, 2, 3... hundredths of a second, the first one 5 seconds."""
    taken = [5.0, *(step / 100 for step in range(1, 200))]
    ticks = itertools.chain.from_iterable((0.0, seconds) for seconds in taken)
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(ticks))
    made = measure(Call("encode", 4, lambda: 4), seconds=2.0)
    counted = taken[1 : 1 + made.runs]
    assert sum(counted) >= 2.0 > sum(counted[:-1])
    assert made.first_seconds == 5.0
    assert made.warm_up_runs == 1
    expected = np.percentile(counted, [50, 90, 99])
    np.testing.assert_allclose([made.p50_seconds, made.p90_seconds, made.p99_seconds], expected)
    assert made.items_per_second == pytest.approx(4 * made.runs / sum(counted))
    assert (made.stage, made.batch, made.items) == ("encode", 4, "clips")


def test_a_slow_call_runs_three_times_and_a_fast_one_warms_up() -> None:
    assert measure(Call("encode", 1, lambda: 1), seconds=1e-9).runs == stages.LEAST_RUNS
    assert measure(Call("encode", 1, lambda: 1), seconds=0.01).warm_up_runs > 1


def test_drawn_videos_are_of_one_clip(tmp_path: Path) -> None:
    sampling = FrameSampling(clip_seconds=0.4)
    paths = draw_videos(tmp_path, sampling)
    found = [probe(path) for path in paths]
    assert [(info.codec, info.width, info.height) for info in found] == [("h264", 640, 360)] * 2
    assert [info.duration_seconds for info in found] == pytest.approx([0.4, 0.4])
    assert paths[0].read_bytes() != paths[1].read_bytes()
