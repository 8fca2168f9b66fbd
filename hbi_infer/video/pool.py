"""Decodes many videos in worker processes, so that a file that crashes or hangs the decoder costs only itself.

A worker (see `hbi_infer.worker_process`) has one video at a time and answers with JSON and raw frames, so a decoder
that a file has taken over finds nothing in the caller that would run what it sends. The time limit is the worker's own
alarm, rung by the kernel: it works when FFmpeg is stuck and when the caller is gone, and does not run while the caller
is slow to fetch a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hbi_engines.operating_system import ended_by_alarm, set_alarm, usable_cpus, wait_readable
from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import Clip, DecodedVideo, Problem, VideoInfo
from hbi_infer.video.reader import decode
from hbi_infer.video.sampling import Stretch
from hbi_infer.worker_process import Answer, Received, Tell, WorkerDiedError, WorkerProcess

_MOST_WORKERS = 4

_Asked: TypeAlias = tuple[Path, Stretch | None]
"""A video, and the stretch of it that is asked for; None for all of it."""


def decode_many(
    videos: Iterable[Path | tuple[Path, Stretch]],
    sampling: FrameSampling,
    *,
    workers: int | None = None,
    timeout_seconds: float = 120.0,
) -> Iterator[DecodedVideo]:
    """Decodes videos in parallel; each gives one result, as soon as it is there.

    A worker decodes one video ahead of the caller and then waits, so about `workers` + 1 decoded videos are in memory
    besides those that the caller keeps.

    Args:
        videos: The files, or parts of files, taken one by one as workers get free.
        sampling: Choice and size of frames, and length of a clip.
        workers: Processes; None: one for each processor, at most 4. 0: decode in this process, with no time limit.
        timeout_seconds: How long any one clip of a video may take. Then the video has failed, and its worker is
            replaced. A long video has as many times as long as it has clips.

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
    asked = (video if isinstance(video, tuple) else (video, None) for video in videos)
    if workers == 0:
        return (decode(path, sampling, stretch=stretch) for path, stretch in asked)
    return _decode_in_workers(asked, sampling, workers, timeout_seconds)


def usual_workers() -> int:
    """Returns how many processes decode unless asked otherwise."""
    return min(_MOST_WORKERS, len(usable_cpus()))


def _decode_in_workers(
    videos: Iterator[_Asked], sampling: FrameSampling, num_workers: int, timeout_seconds: float
) -> Iterator[DecodedVideo]:
    """Keeps every worker busy, and stops them all whatever happens."""
    workers: dict[int, _Decoder] = {}

    def add(video: _Asked) -> None:
        worker = _Decoder(sampling, timeout_seconds)
        workers[worker.fileno()] = worker
        worker.begin(*video)

    try:
        for video in islice(videos, num_workers):
            add(video)
        while workers:
            for number in wait_readable(list(workers)):
                worker = workers[number]
                result = worker.receive()
                if result is None:
                    continue
                # First the next video, then the result: the worker decodes while the caller is busy with it.
                next_video = next(videos, None)
                if next_video is not None and worker.is_alive:
                    worker.begin(*next_video)
                else:
                    del workers[number]
                    worker.stop()
                    if next_video is not None:
                        add(next_video)
                yield result
    finally:
        for worker in workers.values():
            worker.stop()


class _Decoder:
    """A worker process that decodes one video after another.

    Args:
        sampling: Choice and size of frames, and length of a clip.
        timeout_seconds: How long any one clip may take.

    Attributes:
        is_alive: Whether it can be given another video.
    """

    def __init__(self, sampling: FrameSampling, timeout_seconds: float) -> None:
        self._sampling, self._timeout_seconds = sampling, timeout_seconds
        self._path = Path()
        self._stretch: Stretch | None = None
        self._worker = WorkerProcess(__name__)
        self.is_alive = True

    def fileno(self) -> int:
        """Returns the descriptor that is readable when there is something to receive."""
        return self._worker.fileno()

    def begin(self, path: Path, stretch: Stretch | None) -> None:
        """Hands over a video, or a stretch of it."""
        self._path, self._stretch = path, stretch
        self._worker.send(
            {
                "path": str(path),
                "stretch": asdict(stretch) if stretch else None,
                "sampling": asdict(self._sampling),
                "timeout_seconds": self._timeout_seconds,
            }
        )

    def receive(self) -> DecodedVideo | None:
        """Takes what the worker has sent.

        Returns:
            The video; None where the worker has only said that it runs.

        Raises:
            VideoError: The worker ended before it could run.
        """
        try:
            message = self._worker.receive()
            return None if message.kind == "started" else self._unpack(message)
        except WorkerDiedError as died:
            if not died.had_started and died.exit_code > 0:
                raise VideoError(f"the decoder process could not start ({died.cause}): {died.said}") from died
            problem, reason = self._why_ended(died)
        except (ValueError, KeyError, TypeError):
            problem, reason = "crashed", "made the decoder send what is no result"
        self.is_alive = False
        return DecodedVideo(self._path, "failed", reason, None, (), problem=problem, stretch=self._stretch)

    def stop(self) -> None:
        """Ends the process, now."""
        self._worker.kill()

    def _unpack(self, message: Received) -> DecodedVideo:
        """Builds the video, receiving the frames of its clips."""
        fields = message.document
        size, most = self._sampling.image_size, self._sampling.max_frames
        clips = []
        for clip, num_bytes in zip(fields["clips"], message.sizes, strict=True):
            times = clip["timestamps_seconds"]
            frames, timestamps = np.zeros((most, size, size, 3), np.uint8), np.full(most, np.nan)
            timestamps[: len(times)] = times
            if num_bytes != frames[: len(times)].nbytes:
                raise ValueError(f"{num_bytes} bytes of {len(times)} frames")
            self._worker.receive_into(frames[: len(times)].reshape(-1).data)
            clips.append(Clip(clip["start_seconds"], clip["end_seconds"], frames, timestamps, ~np.isnan(timestamps)))
        info = VideoInfo(**fields["info"]) if fields["info"] else None
        outcome = {name: fields[name] for name in ("status", "reason", "problem", "decode_seconds")}
        return DecodedVideo(path=self._path, info=info, clips=tuple(clips), stretch=self._stretch, **outcome)

    def _why_ended(self, died: WorkerDiedError) -> tuple[Problem, str]:
        """Says what a video has done to the process that decoded it."""
        if ended_by_alarm(died.exit_code):
            return "too_slow", f"took longer than {self._timeout_seconds:g} s to decode"
        return "crashed", f"crashed the decoder ({died.cause})"


def work(job: dict[str, Any], _content: bytes, _tell: Tell) -> Answer:
    """Decodes one video in a worker process.

    Args:
        job: The path, the fields of the stretch and of the sampling, and the time limit of a clip.

    Returns:
        The video without its frames; and of each clip K frames, (K, H, W, 3) uint8.
    """
    _discard_stderr()
    rewind = partial(set_alarm, job["timeout_seconds"])
    rewind()
    stretch = Stretch(**job["stretch"]) if job["stretch"] else None
    video = decode(Path(job["path"]), FrameSampling(**job["sampling"]), stretch=stretch, progress=rewind)
    set_alarm(0)
    clips = [
        {
            "start_seconds": clip.start_seconds,
            "end_seconds": clip.end_seconds,
            "timestamps_seconds": clip.timestamps_seconds[clip.mask].tolist(),
        }
        for clip in video.clips
    ]
    document = {
        "status": video.status,
        "reason": video.reason,
        "problem": video.problem,
        "info": asdict(video.info) if video.info else None,
        "clips": clips,
        "decode_seconds": video.decode_seconds,
    }
    return Answer(document, [clip.frames[: int(clip.mask.sum())].reshape(-1).data for clip in video.clips])


@cache
def _discard_stderr() -> None:
    """Drops what the C libraries print: without limit on a damaged file, and nothing that its user could use."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
