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
from tests.builders.video_files import read_number, write_video

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


@pytest.mark.usefixtures("splits")
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


STRETCHES = [
    (0.0, None, [0, 5, 10, 15, 20, 25, 30, 35]),
    (0.0, 2.0, [0, 5, 10, 15]),
    (2.0, 4.0, [20, 25, 30, 35]),
    (1.5, None, [15, 20, 25, 30, 35]),
    (1.25, 2.25, [12, 17, 22]),
    (3.9, 100.0, [39]),
    (2.32, 2.33, [23]),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_each_stretch_of_a_video_has_its_own_frames(tmp_path: Path, workers: int) -> None:
    video = tmp_path / "a.mp4"
    write_video(video, num_frames=40, frames_per_second=10)
    records = [VideoRecord(video, ("a",), end, start_seconds=start) for start, end, _ in STRETCHES]
    records.append(VideoRecord(video, ("too late",), start_seconds=4.0))
    sampling = FrameSampling(frames_per_second=2.0, max_frames=8, image_size=64, clip_seconds=1.0)
    cache = FrameCache(tmp_path / "frames", records, sampling)
    failures = cache.fill(workers=workers)
    assert failures == {f"{video} from 4 s": "has no frame from 4 s: it lasts from 0 to 4 s"}
    assert cache.decoded.tolist() == list(range(len(STRETCHES)))
    frames, mask = cache[cache.decoded]
    for clip, real, (_, _, numbers) in zip(frames, mask, STRETCHES, strict=True):
        assert [read_number(frame) for frame in clip[real]] == numbers


def test_a_stretch_begins_with_the_frame_that_is_on_the_screen(tmp_path: Path) -> None:
    video = tmp_path / "a.mkv"
    write_video(video, num_frames=4, timestamps_seconds=[0.0, 1.0, 5.0, 5.5])
    stretches = [(3.0, 4.0), (3.0, 6.0), (0.5, 1.0)]
    records = [VideoRecord(video, ("a",), end, start_seconds=start) for start, end in stretches]
    cache = FrameCache(tmp_path / "frames", records, FrameSampling(frames_per_second=2.0, max_frames=4, image_size=64))
    assert cache.fill(workers=0) == {}
    frames, mask = cache[np.arange(3)]
    shown = [[read_number(frame) for frame in clip[real]] for clip, real in zip(frames, mask, strict=True)]
    assert shown == [[1], [1, 2, 3], [0]]
    times = cache.timestamps_seconds(np.arange(3))
    assert times[1].tolist()[:3] == [1.0, 5.0, 5.5]
    np.testing.assert_array_equal(np.isnan(times), ~mask)


def test_times_count_from_the_start_of_the_sound_where_pictures_come_later(tmp_path: Path) -> None:
    video = tmp_path / "a.mkv"
    write_video(video, num_frames=8, timestamps_seconds=[1 + number / 4 for number in range(8)], with_audio=True)
    stretches = [(1.5, 2.0), (0.0, 1.4), (0.0, 1.0)]
    records = [VideoRecord(video, ("a",), end, start_seconds=start) for start, end in stretches]
    cache = FrameCache(tmp_path / "frames", records, FrameSampling(frames_per_second=4.0, max_frames=8, image_size=64))
    assert cache.fill(workers=0) == {str(video): "has no frame from 0 s to 1 s: it lasts from 1 to 3 s"}
    frames, mask = cache[np.arange(2)]
    shown = [[read_number(frame) for frame in clip[real]] for clip, real in zip(frames, mask, strict=True)]
    assert shown == [[2, 3], [0, 1]]


FILL_TOGETHER = """
import sys
from pathlib import Path
from hbi_infer.options import FrameSampling
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
records = [VideoRecord(path, ("a",)) for path in sorted(Path(sys.argv[1]).glob("*.mp4"))]
cache = FrameCache(Path(sys.argv[1]) / "frames", records, FrameSampling(image_size=64))
seen = []
cache.fill(workers=0, advance=seen.append)
print(seen[0], cache[cache.decoded][0].max())
"""


def test_of_two_processes_one_decodes_and_the_other_waits(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", num_frames=10)
    command = [sys.executable, "-c", FILL_TOGETHER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].split()[0] for process in both)
    assert said == ["0", "3"]
