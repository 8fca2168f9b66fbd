"""Worker processes: crashes, hangs, interrupts and slow callers, all with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import DecodedVideo
from hbi_infer.video.pool import LEAST_MEMORY_BYTES, decode_many, decode_photo, usual_memory_bytes
from hbi_infer.video.reader import decode
from hbi_infer.video.sandbox import can_confine
from hbi_infer.worker_process import WorkerProcess
from tests.builders.video_files import write_video

QUICK = FrameSampling(image_size=32)
# Every frame, each scaled up: two seconds of work for the long video, some hundredths for the others.
SLOW = FrameSampling(frames_per_second=25, max_frames=600, image_size=448, clip_seconds=100)
TIME_LIMIT_SECONDS = 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, the second of them much longer, and two files that are none."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write_video(folder / f"{number}.mp4", num_frames=600 if number == 1 else 10 + number)
    (folder / "6.mp4").write_bytes(b"")
    os.mkfifo(folder / "7.mp4")
    return folder


@pytest.fixture
def paths(folder: Path) -> list[Path]:
    return [folder / f"{number}.mp4" for number in range(8)]


def children(pid: int) -> list[int]:
    """The processes that a process has started and not yet waited for."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # gone in the meantime
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def may_be_worker(pid: int) -> bool:
    """Whether a process decodes, or did until it ended: then it has no command line any more."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return not command or b"hbi_infer.worker_process" in command


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(entry.resolve() == path.resolve() for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.fixture(autouse=True)
def started() -> Iterator[Callable[[], list[int]]]:
    """The workers that a test has started, none of which it may leave; libraries have helper processes of their own."""
    before = children(os.getpid())

    def workers() -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in before and may_be_worker(pid)]

    yield workers
    assert workers() == []


def assert_same(decoded: DecodedVideo, expected: DecodedVideo) -> None:
    assert (decoded.path, decoded.status, decoded.reason) == (expected.path, expected.status, expected.reason)
    assert decoded.problem == expected.problem
    assert decoded.info == expected.info
    assert len(decoded.clips) == len(expected.clips)
    for clip, other in zip(decoded.clips, expected.clips, strict=True):
        assert (clip.start_seconds, clip.end_seconds) == (other.start_seconds, other.end_seconds)
        np.testing.assert_array_equal(clip.frames, other.frames)
        np.testing.assert_array_equal(clip.timestamps_seconds, other.timestamps_seconds)
        np.testing.assert_array_equal(clip.mask, other.mask)


@pytest.mark.parametrize("workers", [0, 1, 3, None])
def test_workers_give_what_decode_gives(paths: list[Path], workers: int | None) -> None:
    results = {video.path: video for video in decode_many(paths, QUICK, workers=workers)}
    assert set(results) == set(paths)
    for path in paths:
        assert_same(results[path], decode(path, QUICK))
        assert results[path].decode_seconds > 0
    assert [results[path].reason for path in paths[6:]] == ["is empty", "is not a regular file"]
    assert [results[path].problem for path in paths[5:]] == [None, "damaged", "damaged"]


def test_no_videos_start_no_worker() -> None:
    assert list(decode_many([], QUICK, workers=2)) == []


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_costs_only_its_own_file(
    paths: list[Path], sent: signal.Signals, started: Callable[[], list[int]]
) -> None:
    victim = paths[1]

    def crash() -> None:
        wait_until(lambda: any(has_open(pid, victim) for pid in started()))
        (worker,) = started()
        os.kill(worker, sent)

    killer = threading.Thread(target=crash)
    killer.start()
    results = {video.path: video for video in decode_many(paths, SLOW, workers=1)}
    killer.join()
    assert set(results) == set(paths)
    assert (results[victim].status, results[victim].problem, results[victim].clips) == ("failed", "crashed", ())
    assert results[victim].reason == f"crashed the decoder ({sent.name})"
    assert [results[path].status for path in paths] == ["ok", "failed", "ok", "ok", "ok", "ok", "failed", "failed"]


def test_a_video_that_takes_too_long_is_given_up(paths: list[Path]) -> None:
    took = time.monotonic()
    results = {
        video.path: video for video in decode_many(paths[:6], SLOW, workers=2, timeout_seconds=TIME_LIMIT_SECONDS)
    }
    took = time.monotonic() - took
    assert results[paths[1]].reason == "took longer than 0.6 s to decode"
    assert results[paths[1]].problem == "too_slow"
    assert [results[path].status for path in paths[:6]] == ["ok", "failed", "ok", "ok", "ok", "ok"]
    assert took < 10


def test_a_long_video_has_the_time_for_each_of_its_clips(paths: list[Path]) -> None:
    sampling = replace(SLOW, frames_per_second=12.5, max_frames=13, clip_seconds=1)
    (video,) = decode_many(paths[1:2], sampling, workers=1, timeout_seconds=TIME_LIMIT_SECONDS)
    assert (video.status, len(video.clips)) == ("ok", 24)


FAULTY_DECODER = """
import os, signal, time
from hbi_infer.video import pool, reader

def work(job, content, tell):
    square, count = reader.FrameScaler.square, 0

    def faulty(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 30 and job["path"].endswith("1.mp4"):
            FAULT
        return square(*args, **kwargs)

    reader.FrameScaler.square = faulty
    try:
        return pool.work(job, content, tell)
    finally:
        reader.FrameScaler.square = square
"""


@pytest.mark.parametrize(
    ("fault", "problem", "reason", "num_clips"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "crashed the decoder (SIGSEGV)", 2),
        ("os._exit(3)", "crashed", "crashed the decoder (exit code 3)", 2),
        ("time.sleep(60)", "too_slow", "took longer than 0.6 s to decode a clip", 2),
        # The clip in which the memory ends is kept as far as it goes.
        ("return bytes(10**10)", "too_large", "needs more than 0.4 GB of memory to decode", 3),
    ],
)
def test_the_clips_before_a_fault_are_kept(
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: str,
    problem: str,
    reason: str,
    num_clips: int,
) -> None:
    (tmp_path / "faulty_decoder.py").write_text(FAULTY_DECODER.replace("FAULT", fault))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hbi_infer.video.pool.__name__", "faulty_decoder")
    sampling = FrameSampling(frames_per_second=12.5, max_frames=12, image_size=32, clip_seconds=1)
    decoded = decode_many(
        paths[:3], sampling, workers=1, timeout_seconds=TIME_LIMIT_SECONDS, worker_memory_bytes=400_000_000
    )
    first, video, last = sorted(decoded, key=lambda video: video.path)
    assert (first.status, last.status) == ("ok", "ok")
    assert (video.status, video.problem) == ("partial", problem)
    assert video.reason == f"{reason}: only the first {num_clips} s of it were kept"
    expected = decode(paths[1], sampling)
    assert video.info == expected.info
    assert len(video.clips) == num_clips
    for clip, other in zip(video.clips[:2], expected.clips, strict=False):
        np.testing.assert_array_equal(clip.frames, other.frames)
    assert video.clips[-1].mask.sum() == (5 if num_clips == 3 else 12)


@pytest.mark.skipif(not can_confine(), reason="only Linux has these fences")
@pytest.mark.parametrize(
    ("fault", "problem", "reason"),
    [
        ("import socket; socket.socket()", "crashed", "made the decoder do what its sandbox forbids"),
        ("os.fork()", "crashed", "made the decoder do what its sandbox forbids"),
        ("os.system('true')", "crashed", "made the decoder do what its sandbox forbids"),
        ("open(job['path'] + '.new', 'w')", "crashed", "made the decoder do what its sandbox forbids"),
        ("open('/etc/passwd')", "damaged", "makes the decoder open another file, which its sandbox forbids"),
        # It goes on although its alarm has been switched off.
        ("signal.setitimer(signal.ITIMER_REAL, 0); time.sleep(60)", "too_slow", "took longer than 2.4 s to decode"),
    ],
)
def test_a_video_that_breaks_a_rule_fails_and_the_others_do_not(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, problem: str, reason: str
) -> None:
    faulty = FAULTY_DECODER.replace("FAULT", fault).replace("count == 30", "count == 1")
    (tmp_path / "faulty_decoder.py").write_text(f"import socket\n{faulty}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hbi_infer.video.pool.__name__", "faulty_decoder")
    monkeypatch.setattr("hbi_infer.video.pool._MOST_CLIP_TIMES", 3)
    monkeypatch.setattr("hbi_infer.video.pool._GRACE_SECONDS", 1.0)
    decoded = decode_many(paths[:3], QUICK, workers=1, timeout_seconds=TIME_LIMIT_SECONDS)
    first, video, last = sorted(decoded, key=lambda video: video.path)
    assert (first.status, video.status, last.status) == ("ok", "failed", "ok")
    assert (video.problem, video.reason) == (problem, reason)
    assert not paths[1].with_name("1.mp4.new").exists()


def test_a_worker_is_replaced_before_its_processor_time_is_over(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[WorkerProcess] = []
    monkeypatch.setattr(WorkerProcess, "__init__", noting(WorkerProcess.__init__, begun))
    monkeypatch.setattr("hbi_infer.video.pool._VIDEOS_OF_CPU", 1)
    assert [video.status for video in decode_many(paths[2:5], QUICK, workers=1)] == ["ok"] * 3
    assert len(begun) == 3
    monkeypatch.setattr("hbi_infer.video.pool._VIDEOS_OF_CPU", 2)
    assert [video.status for video in decode_many(paths[2:5], QUICK, workers=1)] == ["ok"] * 3
    assert len(begun) == 4


def noting(start: Callable[..., None], begun: list[WorkerProcess]) -> Callable[..., None]:
    """Starts a process, and notes it."""

    def start_and_note(self: WorkerProcess, *arguments: Any, **options: Any) -> None:
        begun.append(self)
        start(self, *arguments, **options)

    return start_and_note


def test_a_file_that_may_not_be_read_says_so(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    may_open = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == paths[0]:
            raise PermissionError(13, "Permission denied")
        return may_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)  # root may read all
    video, other = sorted(decode_many(paths[:2], QUICK, workers=1), key=lambda video: video.path)
    assert other.status == "ok"
    assert (video.status, video.problem) == ("failed", "not_opened")
    assert video.reason == "cannot be opened: Permission denied"


def test_a_large_file_has_more_time_for_its_first_clip(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    write_video(path, num_frames=600)
    with path.open("ab") as file:
        file.truncate(80_000_000)  # a second more for each 4 MB
    (video,) = decode_many([path], SLOW, workers=1, timeout_seconds=TIME_LIMIT_SECONDS)
    assert video.status != "failed"


def test_the_memory_of_a_worker_is_a_share_of_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine_bytes, workers, usual_bytes in [
        (64 * 10**9, 4, 2_000_000_000),
        (8 * 10**9, 4, 1_000_000_000),
        (10**9, 4, 500_000_000),
        (None, 4, 2_000_000_000),
        (8 * 10**9, 0, 2_000_000_000),
    ]:
        monkeypatch.setattr("hbi_infer.video.pool.memory_bytes", lambda size=machine_bytes: size)
        assert usual_memory_bytes(workers) == usual_bytes


def test_a_caller_who_is_slow_is_not_held_against_the_videos(paths: list[Path]) -> None:
    """The time limit runs while a worker decodes, not while its result waits: that is larger than a pipe holds."""
    statuses = []
    for video in decode_many(paths[2:6], SLOW, workers=2, timeout_seconds=TIME_LIMIT_SECONDS):
        statuses.append(video.status)
        time.sleep(TIME_LIMIT_SECONDS)
    assert statuses == ["ok"] * 4


def test_workers_do_not_run_ahead_of_the_caller(paths: list[Path]) -> None:
    taken = []

    def watched() -> Iterator[Path]:
        for path in paths[2:6] * 10:
            taken.append(path)
            yield path

    results = decode_many(watched(), QUICK, workers=2)
    assert isinstance(results, Generator)
    assert taken == []
    next(results)
    time.sleep(0.3)
    assert len(taken) == 3
    next(results)
    assert len(taken) == 4
    results.close()


def test_closing_early_stops_the_workers(paths: list[Path], started: Callable[[], list[int]]) -> None:
    results = decode_many(paths, SLOW, workers=3)
    assert isinstance(results, Generator)
    next(results)
    assert len(started()) == 3
    results.close()
    assert started() == []


def test_an_error_of_the_caller_stops_the_workers(paths: list[Path], started: Callable[[], list[int]]) -> None:
    def broken() -> Iterator[Path]:
        yield from paths[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(decode_many(broken(), QUICK, workers=2))
    assert started() == []


# No `if __name__ == "__main__"`, and a thread: both are trouble for other kinds of worker processes.
SCRIPT = """
import sys, threading, time
from pathlib import Path
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from hbi_infer.options import FrameSampling
from hbi_infer.video.pool import decode_many
sampling = FrameSampling(frames_per_second=25, max_frames=25, clip_seconds=1)
results = decode_many([Path(name) for name in sys.argv[1:]], sampling, workers=2)
next(results)
print("ready", flush=True)
for video in results:
    pass
time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path, paths: list[Path]) -> Iterator[subprocess.Popen[str]]:
    """A program in the midst of decoding, in a process group of its own as a shell would start it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), *map(str, [paths[0]] + [paths[1]] * 50)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_ctrl_c_ends_the_program_and_its_workers(script: subprocess.Popen[str]) -> None:
    workers = children(script.pid)
    assert len(workers) == 2
    os.killpg(script.pid, signal.SIGINT)
    _, stderr = script.communicate(timeout=20)
    assert script.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_workers_end_with_a_program_that_is_killed(script: subprocess.Popen[str]) -> None:
    workers = children(script.pid)
    assert len(workers) == 2
    script.kill()
    wait_until(lambda: not [pid for pid in workers if is_running(pid)])


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie: an orphan may find nobody who waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_cannot_start_is_an_error_with_its_message(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec is missing')")
    results = decode_many(paths, QUICK, workers=1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(VideoError, match=r"could not start \(exit code 1\): .*ImportError: libavcodec is missing"):
        next(results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers is -1; it must be 0"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0; it must be greater than 0"),
        ({"worker_memory_bytes": 10**8}, "worker_memory_bytes is 100000000; it must be at least 200000000"),
    ],
)
def test_options_are_checked_before_anything_starts(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_many([], QUICK, **options)


def test_a_picture_is_decoded_in_a_worker_within_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (7000, 7000), (200, 30, 30)).save(path, compress_level=1)
    photo = decode_photo(path, QUICK)
    assert (photo.status, len(photo.clips), photo.path) == ("ok", 1, path)
    np.testing.assert_allclose(photo.clips[0].frames[0, 16, 16], (200, 30, 30), atol=2)
    slow = decode_photo(path, QUICK, timeout_seconds=0.05)
    assert (slow.status, slow.problem) == ("failed", "too_slow")
    monkeypatch.setattr("hbi_infer.video.pool.usual_memory_bytes", lambda workers: LEAST_MEMORY_BYTES)
    large = decode_photo(path, QUICK)
    assert (large.status, large.problem) == ("failed", "too_large")
    assert "needs more than 0.2 GB of memory" in large.reason


def test_a_worker_imports_little() -> None:
    code = "import sys, hbi_infer.video.pool; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"av", "numpy"} <= loaded
    assert not loaded & {"torch", "onnxruntime", "tokenizers", "rich", "typer", "ftfy", "PIL"}
