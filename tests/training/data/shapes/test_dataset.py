"""The files that shapes become: clips, manifests, a run that was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest

from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_infer.video.reader import decode, probe
from hbi_training.data.shapes import (
    render,
    scene_at,
    scenes,
    write_shapes,
)
from hbi_training.data.shapes.dataset import write_video

ALL_TIMES = np.arange(48) / 12


class TestWriting:
    def test_a_written_clip_decodes_to_nearly_the_rendered_frames(self, tmp_path: Path) -> None:
        write_shapes(tmp_path, 0, 0, 3, seed=2, workers=1)
        lines = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
        for line, scene in zip(lines, scenes(2, "test", 3), strict=True):
            path = tmp_path / line["video"]
            assert line["scene"] == json.loads(json.dumps(asdict(scene)))
            assert len(line["captions"]) == len(set(line["captions"])) == 5
            assert len(line["hard_negatives"]) == 3
            assert len(line["questions"]) >= 6
            info = probe(path)
            assert (info.width, info.height, info.codec) == (96, 96, "h264")
            assert info.duration_seconds == pytest.approx(4.0, abs=0.01)
            decoded = decode(path, FrameSampling(frames_per_second=3.0, max_frames=12, image_size=96, clip_seconds=4.0))
            (clip,) = decoded.clips
            assert decoded.status == "ok"
            assert clip.mask.all()
            difference = np.abs(clip.frames.astype(int) - render(scene, clip.timestamps_seconds)).mean()
            assert difference < 5  # of 255; noise and half the colours' resolution are lost

    def test_the_same_frames_give_the_same_bytes_whatever_the_memory_held(self, tmp_path: Path) -> None:
        frames = render(scene_at(1, "train", 0), ALL_TIMES)
        rng = np.random.default_rng(0)
        contents = set()
        for _ in range(8):
            garbage = [rng.integers(0, 255, rng.integers(200, 300_000), dtype=np.uint8) for _ in range(60)]
            del garbage  # the encoder is given this memory
            write_video(tmp_path / "clip.mp4", frames)
            contents.add((tmp_path / "clip.mp4").read_bytes())
        assert len(contents) == 1

    def test_resumes_and_gives_the_same_bytes(self, tmp_path: Path) -> None:
        write_shapes(tmp_path, 3, 1, 1, seed=1, workers=1)
        videos = sorted((tmp_path / "videos").iterdir())
        manifests = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
        assert [path.name for path in videos] == [
            "test_000000.mp4", "train_000000.mp4", "train_000001.mp4", "train_000002.mp4", "val_000000.mp4",
        ]  # fmt: skip
        lost, kept = videos[2], videos[1]
        content, written_at = lost.read_bytes(), kept.stat().st_mtime_ns
        lost.unlink()
        lost.with_suffix(".part").write_bytes(content[:100])  # what a killed run leaves
        (tmp_path / "train.jsonl").unlink()

        write_shapes(tmp_path, 3, 1, 1, seed=1, workers=2)

        assert lost.read_bytes() == content
        assert kept.stat().st_mtime_ns == written_at
        assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == manifests
        assert not list(tmp_path.rglob("*.part"))
        with pytest.raises(DataError, match="choose another folder"):
            write_shapes(tmp_path, 3, 1, 1, seed=2, workers=1)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"cannot write to .*file: Not a directory; choose another folder"):
            write_shapes(tmp_path / "file", 1, 0, 0)

    def test_ctrl_c_leaves_only_whole_clips(self, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from hbi_training.data.shapes import write_shapes\n"
            "if __name__ == '__main__': write_shapes(Path(sys.argv[1]), 5000, 0, 0, workers=2)"
        )
        script = tmp_path / "write.py"
        script.write_text(program)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("videos/*.mp4"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, stderr = process.communicate(timeout=60)
        assert stderr.rstrip().endswith(b"KeyboardInterrupt")
        assert process.returncode != 0
        videos = list((tmp_path / "videos").iterdir())
        assert 3 <= len(videos) < 5000
        for path in videos:
            with av.open(path) as container:
                assert sum(1 for _ in container.decode(video=0)) == 48
