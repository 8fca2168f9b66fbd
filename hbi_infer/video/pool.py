"""Decodes many videos in worker processes, so that a file that crashes or hangs the decoder costs only itself.

A worker (see `hbi_infer.worker_process`) has one video at a time and sends each clip as soon as it is decoded, as JSON
and raw frames: a decoder that a file has taken over finds nothing in the caller that would run what it sends, and the
clips before a crash are kept. A thread for each worker receives them, so that the worker need not wait for the caller.

Memory and time are bounded by the kernel, which works when FFmpeg is stuck and when the caller is gone: by a limit of
the worker's memory, and by its alarm. On Linux a worker is confined before its first video (see
`hbi_infer.video.sandbox`): it opens no file, and is given each video open. A worker whose alarm a file has switched off
is ended by its caller.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from hbi_engines.operating_system import (
    ended_by_alarm,
    ended_by_filter,
    limit_memory,
    memory_bytes,
    set_alarm,
    usable_cpus,
)
from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import Clip, DecodedVideo, Problem, VideoInfo, cut_short
from hbi_infer.video.opened_files import opened
from hbi_infer.video.packets import open_file, problem_of
from hbi_infer.video.reader import decode, decode_clips
from hbi_infer.video.rehearsal import rehearse
from hbi_infer.video.sampling import Stretch
from hbi_infer.video.sandbox import can_confine, confine
from hbi_infer.worker_process import Answer, Received, Tell, WorkerDiedError, WorkerProcess

_MOST_WORKERS = 4
_USUAL_MEMORY_BYTES = 2_000_000_000
_LEAST_SHARE_BYTES = 500_000_000
LEAST_MEMORY_BYTES = 200_000_000
"""Smallest limit of memory that a worker can run with."""
_LEAST_BYTES_PER_SECOND = 4_000_000
"""Speed at which the slowest disk reads."""
_MOST_CLIP_TIMES = 300
"""Time limit of a whole video, in time limits of a clip."""
_GRACE_SECONDS = 10.0
"""How much longer than its alarm allows a worker may go on before its caller ends it."""
_VIDEOS_OF_CPU = 2
"""Processor time that a worker may take in all, in time limits of its first video."""


class _Asked(NamedTuple):
    """A file, the stretch of it that is asked for (None for all of it), and whether it is a picture."""

    path: Path
    stretch: Stretch | None = None
    is_photo: bool = False


def decode_many(
    videos: Iterable[Path | str | tuple[Path | str, Stretch]],
    sampling: FrameSampling,
    *,
    workers: int | None = None,
    timeout_seconds: float = 120.0,
    worker_memory_bytes: int | None = None,
) -> Iterator[DecodedVideo]:
    """Decodes videos in parallel; each gives one result, as soon as it is there.

    A worker decodes one video ahead of the caller and then waits, so about `workers` + 1 decoded videos are in memory
    besides those that the caller keeps.

    A video that goes beyond a limit has failed, or is partial if clips of it were decoded before. Its worker is
    replaced where the limit was one of time.

    Args:
        videos: The files, or parts of files, taken one by one as workers get free.
        sampling: Choice and size of frames, and length of a clip.
        workers: Processes; None: one for each processor, at most 4. 0: decode in this process, with no limits.
        timeout_seconds: How long any one clip of a video may take; a long video has as many times as long as it has
            clips, up to 300 times. The first clip, before which the whole file is read, may take a second longer for
            each 4 MB of the file. Half of that is for reading: what has been read by then is decoded.
        worker_memory_bytes: How much memory a worker may take, where the system can bound it. None: 2 GB, or less on a
            machine where all workers would take more than half of the memory; at least 500 MB.

    Yields:
        The results, in any order.

    Raises:
        InputError: An option cannot be used.
        VideoError: A worker cannot be started.
    """
    if workers is None:
        workers = usual_workers()
    if workers < 0:
        raise InputError(f"workers is {workers}; it must be 0 (decode in this process) or more")
    if not timeout_seconds > 0:
        raise InputError(f"timeout_seconds is {timeout_seconds}; it must be greater than 0")
    if worker_memory_bytes is None:
        worker_memory_bytes = usual_memory_bytes(workers)
    if worker_memory_bytes < LEAST_MEMORY_BYTES:
        raise InputError(f"worker_memory_bytes is {worker_memory_bytes}; it must be at least {LEAST_MEMORY_BYTES}")
    pairs = (video if isinstance(video, tuple) else (video, None) for video in videos)
    if workers == 0:
        return (decode(path, sampling, stretch=stretch) for path, stretch in pairs)
    asked = (_Asked(Path(path), stretch) for path, stretch in pairs)
    return _decode_in_workers(asked, sampling, workers, _Limits(timeout_seconds, worker_memory_bytes))


def decode_photo(path: Path | str, sampling: FrameSampling, *, timeout_seconds: float = 120.0) -> DecodedVideo:
    """Decodes a picture in a worker process, with the limits that a video has; see `hbi_infer.video.photo`.

    Args:
        path: The file.
        sampling: Size of frames, and how many places for them a clip has.
        timeout_seconds: How long it may take.

    Raises:
        VideoError: A worker cannot be started.
    """
    limits = _Limits(timeout_seconds, usual_memory_bytes(1))
    [photo] = _decode_in_workers(iter([_Asked(Path(path), is_photo=True)]), sampling, 1, limits)
    return photo


def usual_workers() -> int:
    """Returns how many processes decode unless asked otherwise."""
    return min(_MOST_WORKERS, len(usable_cpus()))


def usual_memory_bytes(workers: int) -> int:
    """Returns how much memory each of so many workers may take unless asked otherwise."""
    share = (memory_bytes() or 2 * workers * _USUAL_MEMORY_BYTES) // (2 * max(1, workers))
    return max(_LEAST_SHARE_BYTES, min(_USUAL_MEMORY_BYTES, share))


@dataclass(frozen=True)
class _Limits:
    """Limits of a worker.

    Attributes:
        clip_seconds: Time for a clip.
        memory_bytes: Memory of the process.
    """

    clip_seconds: float
    memory_bytes: int

    def first_seconds(self, path: Path) -> float:
        """Returns the time for the first clip of a file."""
        try:
            size_bytes = path.stat().st_size
        except (OSError, ValueError):  # the worker says what is wrong with it
            size_bytes = 0
        return self.clip_seconds + size_bytes / _LEAST_BYTES_PER_SECOND

    def video_seconds(self, first_seconds: float) -> float:
        """Returns the time for a whole file, given that for its first clip."""
        return first_seconds + _MOST_CLIP_TIMES * self.clip_seconds


def _decode_in_workers(
    videos: Iterator[_Asked], sampling: FrameSampling, num_workers: int, limits: _Limits
) -> Iterator[DecodedVideo]:
    """Keeps every worker busy, and stops them all whatever happens."""
    workers: set[_Decoder] = set()
    ready: SimpleQueue[_Decoder] = SimpleQueue()

    def add(video: _Asked) -> None:
        worker = _Decoder(sampling, limits, ready)
        workers.add(worker)
        worker.begin(video)

    try:
        for video in islice(videos, num_workers):
            add(video)
        while workers:
            worker = ready.get()
            result = worker.take()
            # First the next video, then the result: the worker decodes while the caller is busy with it.
            next_video = next(videos, None)
            if next_video is not None and worker.can_take(next_video.path):
                worker.begin(next_video)
            else:
                workers.remove(worker)
                worker.stop()
                if next_video is not None:
                    add(next_video)
            yield result
    finally:
        for worker in workers:
            worker.stop()


class _Decoder:
    """A worker process that decodes one video after another, and the thread that receives them.

    Args:
        sampling: Choice and size of frames, and length of a clip.
        limits: Limits of the process.
        ready: Where it puts itself when it has received a video.
    """

    def __init__(self, sampling: FrameSampling, limits: _Limits, ready: SimpleQueue[_Decoder]) -> None:
        self._sampling, self._limits, self._ready = sampling, limits, ready
        self._path, self._first_seconds = Path(), 0.0
        self._stretch: Stretch | None = None
        self._received: DecodedVideo | VideoError | None = None
        self._cpu_seconds, self._busy_seconds = 0.0, 0.0
        self._worker = WorkerProcess(__name__, takes_files=can_confine())
        self._begun: SimpleQueue[bool] = SimpleQueue()
        self._thread = Thread(target=self._receive, daemon=True)
        self._thread.start()
        self._is_alive = True

    def can_take(self, path: Path) -> bool:
        """Returns whether it can be given another video, and has the processor time for it."""
        needed_seconds = self._limits.video_seconds(self._limits.first_seconds(path))
        return self._is_alive and self._busy_seconds + needed_seconds <= self._cpu_seconds

    def begin(self, asked: _Asked) -> None:
        """Hands over a video, a stretch of it, or a picture."""
        started = time.perf_counter()
        path, stretch, is_photo = asked
        self._path, self._stretch, self._first_seconds = path, stretch, self._limits.first_seconds(path)
        self._cpu_seconds = self._cpu_seconds or _VIDEOS_OF_CPU * self._video_seconds
        job = {
            "path": str(path),
            "stretch": asdict(stretch) if stretch else None,
            "is_photo": is_photo,
            "sampling": asdict(self._sampling),
            "first_seconds": self._first_seconds,
            "cpu_seconds": self._cpu_seconds,
        }
        try:
            self._send(job | asdict(self._limits))
        except VideoError as error:
            seconds = time.perf_counter() - started
            self._received = DecodedVideo(path, "failed", str(error), None, (), seconds, problem_of(error), stretch)
            self._ready.put(self)
            return
        self._received = None
        self._begun.put(True)

    def take(self) -> DecodedVideo:
        """Returns the video that was received.

        Raises:
            VideoError: The worker ended before it could run.
        """
        assert self._received is not None
        if isinstance(self._received, VideoError):
            raise self._received
        return self._received

    def stop(self) -> None:
        """Ends the process, now."""
        self._worker.end()
        self._begun.put(False)
        if not sys.is_finalizing():  # then no other thread runs any more, and this one would wait for ever
            self._thread.join()
        self._worker.kill()

    @property
    def _video_seconds(self) -> float:
        """Time for the video that it has."""
        return self._limits.video_seconds(self._first_seconds)

    def _send(self, job: dict[str, Any]) -> None:
        """Sends a job, with its file open where the worker may open none.

        Raises:
            VideoError: The file cannot be opened, or cannot be a video.
        """
        if not can_confine():
            self._worker.send(job)
            return
        descriptor = open_file(self._path)
        try:
            self._worker.send(job, file=descriptor)
        finally:
            os.close(descriptor)

    def _receive(self) -> None:
        """Receives one video after another, in a thread: starting one for each would make the caller wait."""
        while self._begun.get():
            started = time.monotonic()
            try:
                with self._worker.time_limit(self._video_seconds + _GRACE_SECONDS):
                    self._received = self._video()
            except VideoError as error:
                self._received = error
            finally:
                self._busy_seconds += time.monotonic() - started
                self._ready.put(self)

    def _video(self) -> DecodedVideo:
        """Receives the clips of a video as they are decoded, and its end."""
        info: VideoInfo | None = None
        clips: list[Clip] = []
        try:
            while (message := self._worker.receive()).kind != "end":
                if message.kind == "part":
                    info = VideoInfo(**message.document["info"])
                    clips.append(self._clip(message))
            return DecodedVideo(self._path, info=info, clips=tuple(clips), stretch=self._stretch, **message.document)
        except WorkerDiedError as died:
            if not died.had_started and died.exit_code > 0:
                raise VideoError(f"the decoder process could not start ({died.cause}): {died.said}") from died
            problem, reason = self._why_ended(died, after_clips=bool(clips))
        except (ValueError, KeyError, TypeError):
            problem, reason = "crashed", "made the decoder send what is no result"
        self._is_alive = False
        if not clips:
            return DecodedVideo(self._path, "failed", reason, None, (), problem=problem, stretch=self._stretch)
        reason = cut_short(reason, clips[-1].end_seconds)
        return DecodedVideo(self._path, "partial", reason, info, tuple(clips), problem=problem, stretch=self._stretch)

    def _clip(self, message: Received) -> Clip:
        """Builds a clip, receiving its frames."""
        clip, (num_bytes,) = message.document, message.sizes
        size, most = self._sampling.image_size, self._sampling.max_frames
        times = clip["timestamps_seconds"]
        frames, timestamps = np.zeros((most, size, size, 3), np.uint8), np.full(most, np.nan)
        timestamps[: len(times)] = times
        if num_bytes != frames[: len(times)].nbytes:
            raise ValueError(f"{num_bytes} bytes of {len(times)} frames")
        self._worker.receive_into(frames[: len(times)].reshape(-1).data)
        return Clip(clip["start_seconds"], clip["end_seconds"], frames, timestamps, ~np.isnan(timestamps))

    def _why_ended(self, died: WorkerDiedError, *, after_clips: bool) -> tuple[Problem, str]:
        """Says what a video has done to the process that decoded it."""
        if ended_by_filter(died.exit_code):
            return "crashed", "made the decoder do what its sandbox forbids"
        if died.was_silent:
            return "too_slow", f"took longer than {round(self._video_seconds, 1):g} s to decode"
        if not ended_by_alarm(died.exit_code):
            return "crashed", f"crashed the decoder ({died.cause})"
        if after_clips:
            return "too_slow", f"took longer than {self._limits.clip_seconds:g} s to decode a clip"
        return "too_slow", f"took longer than {round(self._first_seconds, 1):g} s to decode"


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Decodes one video, or picture, in a worker process.

    Args:
        job: The path, whether it is a picture, the fields of the stretch and of the sampling, the limits, and the
            descriptor of the file where it is handed over open.
        tell: Sends each clip: its times, the video's properties, and its K frames, (K, H, W, 3) uint8.

    Returns:
        What is to be said of the video besides its clips.
    """
    _prepare(job["memory_bytes"], job["cpu_seconds"], is_photo=job["is_photo"])
    with opened(job["path"], job.get("descriptor")):
        return _decode(job, tell)


@cache
def _prepare(memory_bytes: int, cpu_seconds: float, *, is_photo: bool) -> None:
    """Bounds and confines this process, before its first video."""
    _discard_stderr()
    rehearse(with_photo=is_photo)
    limit_memory(memory_bytes)
    confine(cpu_seconds=cpu_seconds)


def _decode(job: dict[str, Any], tell: Tell) -> Answer:
    """Decodes the video or picture of a job."""
    timer = _Timer(job["first_seconds"], job["clip_seconds"])

    def take(info: VideoInfo, clip: Clip) -> None:
        set_alarm(0)
        times = {"start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}
        seconds = clip.timestamps_seconds[clip.mask].tolist()
        frames = clip.frames[: len(seconds)].reshape(-1).data
        tell({"info": asdict(info), **times, "timestamps_seconds": seconds}, [frames])
        timer.rewind()

    sampling, stretch = FrameSampling(**job["sampling"]), Stretch(**job["stretch"]) if job["stretch"] else None
    if job["is_photo"]:
        from hbi_infer.video.photo import read_photo

        video = read_photo(job["path"], sampling)
        for clip in video.clips:
            assert video.info is not None
            take(video.info, clip)
    else:
        video = decode_clips(job["path"], sampling, take, stretch=stretch, progress=timer.check_reading)
    set_alarm(0)
    return Answer({name: getattr(video, name) for name in ("status", "reason", "problem", "decode_seconds")})


class _Timer:
    """The alarm of a worker while it decodes a video.

    Args:
        first_seconds: Time for the first clip.
        clip_seconds: Time for each further one.
    """

    def __init__(self, first_seconds: float, clip_seconds: float) -> None:
        self._clip_seconds, self._reading_seconds = clip_seconds, first_seconds / 2
        self._started = time.monotonic()
        self._ends = self._started + first_seconds + _MOST_CLIP_TIMES * clip_seconds
        set_alarm(first_seconds)

    def check_reading(self) -> None:
        """Raises `TimeoutError` when half of the time for the first clip is over."""
        if time.monotonic() > self._started + self._reading_seconds:
            raise TimeoutError(f"reading it took longer than {self._reading_seconds:g} s")

    def rewind(self) -> None:
        """Gives the next clip its time."""
        set_alarm(max(1e-3, min(self._clip_seconds, self._ends - time.monotonic())))


def _discard_stderr() -> None:
    """Drops what the C libraries print: without limit on a damaged file, and nothing that its user could use."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
