"""The cache of decoded frames: disks without room, broken videos, filling it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
from tests.builders.tiny_training import (
    SAMPLING,
)

SMALL_DISK = """
mount -t tmpfs -o size=100k none "$1" || exit 77
exec "$2" -c "$3" "$1"
"""

FILL = """
import sys
from pathlib import Path
from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
folder = Path(sys.argv[1])
record = VideoRecord(folder / "clip.mp4", ("a",))
record.video.write_bytes(b"")
try:
    FrameCache(folder / "frames", [record], FrameSampling(image_size=112))
except DataError as error:
    print(error, sorted(path.name for path in folder.rglob("frames.npy*")))
"""


def test_a_disk_without_room_for_the_frames_is_told(tmp_path: Path) -> None:
    """A mapped file has no room until its pages are written, and then the process would be killed."""
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        SMALL_DISK,
        "sh",
        str(tmp_path),
        sys.executable,
        FILL,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no small disk can be mounted here")
    assert done.returncode == 0, done.stderr
    assert "GiB for the decoded frames: No space left on device" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_the_cache_continues_where_it_stopped_and_keeps_reasons(data_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    good = sorted((data_folder / "videos").glob("train_*.mp4"))[:3]
    records = [VideoRecord(path, ("a",)) for path in [*good, broken, good[0]]]
    sampling = FrameSampling(**SAMPLING)
    failures = FrameCache(tmp_path / "frames", records, sampling).fill(workers=0)
    assert list(failures) == [str(broken)]
    assert "empty" in failures[str(broken)]

    again = FrameCache(tmp_path / "frames", records, sampling)
    seen: list[int] = []
    assert again.fill(workers=0, advance=seen.append) == failures
    assert seen == [5]
    assert again.decoded.tolist() == [0, 1, 2, 4]
    frames, mask = again[np.array([0, 4])]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert mask.all()
    with pytest.raises(DataError, match="none of 1 videos could be decoded"):
        FrameCache(tmp_path / "frames", records[3:4], sampling).fill(workers=0)
