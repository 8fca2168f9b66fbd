from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbi_infer.bench import stages as bench_stages
from hbi_infer.bench.machine import peak_memory_bytes
from hbi_infer.bench.picture import picture
from hbi_infer.bench.report import check_targets, is_suspect, milliseconds, per_second, to_text, unreliable
from hbi_infer.bench.run import MOST, Agreement, DeviceResult, Plan, Report, agreement, run
from hbi_infer.bench.stages import DEVICE_STAGES, HOST_STAGES, Call, Measurement, draw_videos, measure
from hbi_infer.bench.worker import HOST, Task
from hbi_infer.errors import InputError
from hbi_infer.options import FrameSampling
from hbi_infer.video.reader import probe
from tests.builders.tiny_bundle import write_tiny_bundle

NO_TORCH = "hbi_infer.bench.worker"


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The embedded model on two devices that run, and on one that does not; by the command."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(
        *("--device", "cpu,openvino", "--device", "cuda", "--batch", "1,3", "--seconds", "0.02"),
        *("--stage", "decode,tokenise,encode,text encode,score,similarity,query end to end,video end to end"),
        *("--json", folder / "all.json", "--plot", folder / "all.png"),
    )
    return {"done": done, "document": json.loads((folder / "all.json").read_text()), "plot": folder / "all.png"}


def small_report(**changes: Any) -> Report:
    made = Measurement(
        stage="encode",
        batch=2,
        items="clips",
        runs=5,
        warm_up_runs=1,
        first_seconds=1.0,
        p50_seconds=0.5,
        p90_seconds=0.75,
        p99_seconds=0.875,
        items_per_second=4.0,
    )
    same = Agreement(largest_difference=0.0, smallest_cosine=1.0, smallest_cosine_unmerged=1.0)
    other = Agreement(largest_difference=0.5, smallest_cosine=0.25, smallest_cosine_unmerged=0.5)
    devices = (
        DeviceResult(device="cpu", reason="as asked", measurements=(made,), agreement=same, peak_memory_bytes=2**20),
        DeviceResult(device="openvino", measurements=(replace(made, p50_seconds=0.25),), agreement=other),
        DeviceResult(device="cuda", problem="there is no GPU"),
    )
    fields = {
        "model": {"name": "tiny", "width": 3, "sampling": {"max_frames": 4, "image_size": 16}},
        "plan": {"threads": 1},
        "machine": {"processor": "a processor", "gpu": None, "load_average_1_minute": 0.5},
        "measured_at": "2026-01-01T00:00:00+00:00",
        "code_version": None,
        "devices": devices,
    }
    return Report(**fields | changes)


def test_percentiles_and_throughput_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: calls take 1, 2, 3... hundredths of a second, the first one 5 seconds."""
    taken = [5.0, *(step / 100 for step in range(1, 200))]
    ticks = itertools.chain.from_iterable((0.0, seconds) for seconds in taken)
    monkeypatch.setattr(bench_stages.time, "perf_counter", lambda: next(ticks))
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
    assert measure(Call("encode", 1, lambda: 1), seconds=1e-9).runs == bench_stages.LEAST_RUNS
    assert measure(Call("encode", 1, lambda: 1), seconds=0.01).warm_up_runs > 1


def test_drawn_videos_are_of_one_clip(tmp_path: Path) -> None:
    sampling = FrameSampling(clip_seconds=0.4)
    paths = draw_videos(tmp_path, sampling)
    found = [probe(path) for path in paths]
    assert [(info.codec, info.width, info.height) for info in found] == [("h264", 640, 360)] * 2
    assert [info.duration_seconds for info in found] == pytest.approx([0.4, 0.4])
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_the_peak_is_of_this_process_alone() -> None:
    """A child of a parent with much memory holds little."""
    ballast = np.ones(2**27, np.uint8)
    code = "from hbi_infer.bench.machine import peak_memory_bytes; print(peak_memory_bytes())"
    child = int(subprocess.check_output([sys.executable, "-c", code]))
    assert 2**20 < child < ballast.nbytes < peak_memory_bytes()


def test_the_command_measures_every_stage_on_every_device_that_runs(measured: dict[str, Any]) -> None:
    done, result = measured["done"], measured["document"]["result"]
    assert done.returncode == 3, done.stderr
    host, cpu, openvino, cuda = result["devices"]
    assert [part["device"] for part in result["devices"]] == [HOST, "cpu", "openvino", "cuda"]
    assert "cuda cannot run here" in cuda["problem"]
    assert not cuda["measurements"]
    for part, stages in ((host, HOST_STAGES), (cpu, DEVICE_STAGES), (openvino, DEVICE_STAGES)):
        assert not part["problem"]
        assert part["peak_memory_bytes"] > 2**24
        made = {(each["stage"], each["batch"]) for each in part["measurements"]}
        batches = {stage: {1} if stage in ("decode", "video end to end") else {1, 3} for stage in stages}
        wanted = {(stage, batch) for stage in stages for batch in batches[stage]}
        assert made == {(stage, batch) for stage, batch in wanted if stage not in ("answer", "caption")}
        for each in part["measurements"]:
            assert each["runs"] >= bench_stages.LEAST_RUNS
            assert 0 < each["p50_seconds"] <= each["p90_seconds"] <= each["p99_seconds"]
    assert openvino["agreement"]["smallest_cosine_unmerged"] > 0.9999
    assert 0 < openvino["agreement"]["largest_difference"] < 1e-3
    assert cpu["agreement"]["largest_difference"] == 0
    assert measured["document"]["machine"]["usable_cores"] >= 1
    for shown in ("video end to end", "openvino", "cuda cannot run here", "p99"):
        assert shown in done.stdout


def test_the_json_is_the_whole_report(measured: dict[str, Any]) -> None:
    document = measured["document"]
    report = Report.from_document(document)
    assert report.to_document() == document
    assert to_text(report) == measured["done"].stdout
    assert [result.device for result in report.failed] == ["cuda"]


def test_the_plot_is_a_picture(measured: dict[str, Any]) -> None:
    with Image.open(measured["plot"]) as image:
        assert image.format == "PNG"
        assert 1000 < image.width < 2000
        assert 600 < image.height < 2000


def test_bars_are_as_long_as_the_times_are() -> None:
    image = Image.open(io.BytesIO(picture(small_report()))).convert("RGB")
    pixels = np.asarray(image)
    blue, orange = ((pixels == colour).all(-1).any(0).sum() for colour in ((0, 114, 178), (230, 159, 0)))
    assert blue == pytest.approx(2 * orange, abs=2)


def test_a_bundle_that_answers_and_captions_is_measured_at_that(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", "qa", "caption")
    plan = Plan(bundle=bundle, devices=("cpu",), batches=(2,), stages=("answer", "caption"), seconds=0.01)
    report = run(plan, NO_TORCH)
    host, cpu = report.devices
    assert [made.stage for made in cpu.measurements] == ["answer", "caption"]
    assert not host.measurements


def test_a_wrong_device_is_not_hidden_by_its_speed() -> None:
    report = small_report()
    assert [is_suspect(result) for result in report.devices] == [False, True, False]
    text = to_text(report)
    assert "WRONG: a token of openvino has a cosine of only 0.500" in text
    assert "cuda: there is no GPU" in text


@pytest.mark.parametrize(("devices", "expected"), [((0,), False), ((0, 1), True), ((0, 2), True)])
def test_wrong_results_and_devices_that_cannot_run_make_a_report_unreliable(
    devices: tuple[int, ...], expected: bool
) -> None:
    report = small_report()
    assert unreliable(replace(report, devices=tuple(report.devices[place] for place in devices))) is expected


def test_the_others_are_compared_with_eager_pytorch() -> None:
    cpu, openvino, _ = small_report().devices
    assert "times torch" not in to_text(small_report())
    report = small_report(devices=(cpu, replace(openvino, device="torch")))
    header, *rows = (line.split() for line in to_text(report).splitlines() if "5  " in line or "times" in line)
    assert header[-2:] == ["times", "torch"]
    assert [(row[-1], "torch" in row) for row in rows] == [("0.50", False), ("1.00", True)]


def test_agreement_leaves_padding_out_and_tells_merged_tokens_from_others() -> None:
    reference = {
        "video entity tokens": np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32),
        "video entity weights": np.array([[1.0, 0.0]], np.float32),
        "video event tokens": np.array([[[1.0, 0.0]]], np.float32),
        "video event weights": np.array([[1.0]], np.float32),
    }
    other = dict(reference)
    other["video entity tokens"] = np.array([[[0.6, 0.8], [0.0, -1.0]]], np.float32)
    other["video event tokens"] = np.array([[[0.0, 3.0]]], np.float32)
    found = agreement(other, reference, "entity")
    assert found.smallest_cosine_unmerged == pytest.approx(0.6)
    assert found.smallest_cosine == 0.0
    assert found.largest_difference == 3.0


def test_not_a_number_is_suspect() -> None:
    reference = {"text entity tokens": np.ones((1, 1, 2), np.float32), "text entity weights": np.ones((1, 1))}
    broken = reference | {"text entity tokens": np.full((1, 1, 2), np.nan, np.float32)}
    found = agreement(broken, reference, "entity")
    assert is_suspect(DeviceResult(device="cuda", agreement=found))
    assert found == Agreement(largest_difference=MOST, smallest_cosine=0.0, smallest_cosine_unmerged=0.0)
    assert json.loads(json.dumps(asdict(found), allow_nan=False)) == asdict(found)


def test_a_process_that_dies_is_a_row(tmp_path: Path) -> None:
    plan = Plan(
        bundle=write_tiny_bundle(tmp_path / "tiny"),
        checkpoint=tmp_path,
        devices=("torch",),
        batches=(1,),
        stages=("tokenise",),
        seconds=0.001,
    )
    report = run(plan, "hbi_infer.no_such_module")
    assert "its process died with exit code 1" in report.devices[1].problem
    assert "no_such_module" in report.devices[1].problem


def test_a_process_that_hangs_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text(
        """
import json, time
print(json.dumps({"reason": "it began"}), flush=True)
time.sleep(600)
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    plan = Plan(
        bundle=write_tiny_bundle(tmp_path / "tiny"),
        checkpoint=tmp_path,
        devices=("torch",),
        stages=("tokenise",),
        batches=(1,),
        seconds=0.001,
    )
    (hanging,) = run(plan, "hanging", silence_seconds=4).devices[1:]
    assert hanging.reason == "it began"
    assert "died of SIGKILL (it had said nothing for 4 s, or memory ran out)" in hanging.problem


def test_torch_needs_a_checkpoint(tmp_path: Path) -> None:
    plan = Plan(bundle=write_tiny_bundle(tmp_path / "tiny"), devices=("torch",), stages=("tokenise",), seconds=0.001)
    assert "--checkpoint" in run(plan, NO_TORCH).devices[1].problem


def test_a_task_comes_through_as_it_went(tmp_path: Path) -> None:
    task = Task(
        device="cpu",
        bundle=tmp_path,
        checkpoint=None,
        videos=(tmp_path / "a.mp4",),
        batches=(1, 2),
        stages=("encode",),
        seconds=1.5,
        threads=None,
        encodings=tmp_path / "e.npz",
    )
    for sent in (task, replace(task, checkpoint=tmp_path, threads=2)):
        assert Task.from_json(sent.to_json()) == sent


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": ("gpu",)}, "there is no device 'gpu'"),
        ({"stages": ("decoding",)}, "there is no stage 'decoding'"),
        ({"batches": (1, 0)}, "give sizes of 1 or more"),
        ({"seconds": 0.0}, "must be greater than 0"),
        ({"seconds": float("nan")}, "must be greater than 0"),
    ],
)
def test_a_plan_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**fields)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch", "one"], 2, "give whole numbers such as 1,8"),
        (["--device", "gpu"], 1, "there is no device 'gpu'"),
        (["--json", "no-such-folder/all.json"], 1, "cannot be written"),
        (["--random", "vit-b-32", "--bundle", "x"], 2, "leave --bundle and --checkpoint"),
        (["--videos", "no-such-folder", "--device", "cpu"], 1, "is not a folder"),
    ],
)
def test_wrong_usage_is_told_at_once(arguments: list[str], code: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        check_targets(tmp_path)
    check_targets(None, tmp_path / "new.json")


@pytest.mark.parametrize(("rate", "shown"), [(0.2104, "0.21"), (48.27, "48.3"), (14726.0, "14,726")])
def test_per_second(rate: float, shown: str) -> None:
    assert per_second(rate) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.78, "780 ms"), (0.0123, "12.3 ms"), (0.00123, "1.23 ms"), (1.2e-5, "0.012 ms")]
)
def test_milliseconds(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown
