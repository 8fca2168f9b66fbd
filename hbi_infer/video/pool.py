"""Decodes many videos in worker processes, so that a file that crashes or hangs the decoder costs only itself.

A worker is a fresh Python that imports this module and nothing of the caller's program: a script needs no
`if __name__ == "__main__"`, and the caller's threads cannot harm it. It has one video at a time. The path goes in as
JSON and the result comes back as JSON and raw bytes, so a decoder that a file has taken over finds nothing in the
caller that would run what it sends. The time limit is the worker's own alarm, rung by the kernel: it works when FFmpeg
is stuck and when the caller is gone, and does not run while the caller is slow to fetch a result.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import numpy as np

from hbi_infer.errors import InputError, VideoError
from hbi_infer.options import FrameSampling
from hbi_infer.video.decoded_video import CRASHED, TOO_SLOW, Clip, DecodedVideo, VideoInfo
from hbi_infer.video.reader import decode

_MOST_WORKERS = 4
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from hbi_infer.video.pool import serve; serve(int(sys.argv[2]))"
)


def decode_many(
    paths: Iterable[Path],
    sampling: FrameSampling,
    *,
    workers: int | None = None,
    timeout_seconds: float = 120.0,
) -> Iterator[DecodedVideo]:
    """Decode videos in parallel; each path gives one result, as soon as it is there.

    A worker decodes one video ahead of the caller and then waits, so about `workers` + 1 decoded videos are in memory
    besides those that the caller keeps.

    Args:
        paths: The files, taken one by one as workers get free.
        sampling: Which frames, how large, and how long a clip is.
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
    if workers == 0:
        return (decode(path, sampling) for path in paths)
    return _decode_in_workers(iter(paths), sampling, workers, timeout_seconds)


def usual_workers() -> int:
    """How many processes decode unless asked otherwise."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def _decode_in_workers(
    paths: Iterator[Path], sampling: FrameSampling, num_workers: int, timeout_seconds: float
) -> Iterator[DecodedVideo]:
    """Keep every worker busy, and stop them all whatever happens."""
    workers: dict[Connection, _Worker] = {}

    def add(path: Path) -> None:
        worker = _Worker(sampling, timeout_seconds)
        workers[worker.connection] = worker
        worker.begin(path)

    try:
        for path in islice(paths, num_workers):
            add(path)
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                worker = workers[connection]
                result = worker.receive()
                if result is None:
                    continue
                # First the next video, then the result: the worker decodes while the caller is busy with it.
                next_path = next(paths, None)
                if next_path is not None and worker.is_alive:
                    worker.begin(next_path)
                else:
                    worker.stop()
                    del workers[connection]
                    if next_path is not None:
                        add(next_path)
                yield result
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """The caller's end of a worker process.

    Args:
        sampling: Which frames, how large, and how long a clip is.
        timeout_seconds: How long any one clip may take.

    Attributes:
        connection: Readable when there is something to receive.
        is_alive: Whether it can be given another video.
    """

    def __init__(self, sampling: FrameSampling, timeout_seconds: float) -> None:
        self._sampling, self._timeout_seconds = sampling, timeout_seconds
        self._path = Path()
        self._has_started = False
        self.is_alive = True
        self.connection, far_end = Pipe()
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), str(far_end.fileno())],
                pass_fds=[far_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the caller, who stops the workers in order
            )

    def begin(self, path: Path) -> None:
        """Hand over a video."""
        self._path = path
        task = {"path": str(path), "sampling": asdict(self._sampling), "timeout_seconds": self._timeout_seconds}
        with suppress(OSError):  # it has died: `receive` will tell
            self.connection.send_bytes(json.dumps(task).encode())

    def receive(self) -> DecodedVideo | None:
        """Take what the worker has sent.

        Returns:
            The result; None where it has only said that it runs.

        Raises:
            VideoError: It ended before it could run.
        """
        try:
            message = self.connection.recv_bytes()
            if not self._has_started:
                self._has_started = True
                return None
            return self._unpack(json.loads(message))
        except (EOFError, OSError):
            reason = self._why_ended()
        except (ValueError, KeyError, TypeError, BufferTooShort):
            reason = "made the decoder send what is no result"
        self.is_alive = False
        return DecodedVideo(self._path, "failed", reason, None, ())

    def stop(self) -> None:
        """End the process, now."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _unpack(self, fields: dict[str, Any]) -> DecodedVideo:
        """Build the result, receiving the frames of its clips."""
        size, most = self._sampling.image_size, self._sampling.max_frames
        clips = []
        for clip in fields["clips"]:
            times = clip["timestamps_seconds"]
            frames, timestamps = np.zeros((most, size, size, 3), np.uint8), np.full(most, np.nan)
            timestamps[: len(times)] = times
            received_bytes = self.connection.recv_bytes_into(frames[: len(times)].reshape(-1).data)
            if received_bytes != frames[: len(times)].nbytes:
                raise ValueError(received_bytes)
            clips.append(Clip(clip["start_seconds"], clip["end_seconds"], frames, timestamps, ~np.isnan(timestamps)))
        info = VideoInfo(**fields["info"]) if fields["info"] else None
        seconds = float(fields["decode_seconds"])
        return DecodedVideo(self._path, fields["status"], fields["reason"], info, tuple(clips), seconds)

    def _why_ended(self) -> str:
        """Say what became of the process."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "made the decoder stop answering"
        if not self._has_started and code > 0:
            raise VideoError(f"the decoder process could not start (exit code {code}); its message is above")
        if code == -signal.SIGALRM:
            return f"{TOO_SLOW} {self._timeout_seconds:g} s to decode"
        return f"{CRASHED} ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def serve(file_descriptor: int) -> None:
    """Be a worker: decode one video after another until the caller closes the connection."""
    connection = Connection(file_descriptor)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    connection.send_bytes(b"running")
    # From here on stderr would only show what the C libraries print on a crash.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    with suppress(EOFError, OSError):
        while True:
            task = json.loads(connection.recv_bytes())

            def rewind(seconds: float = task["timeout_seconds"]) -> None:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                if connection.poll():  # nothing is sent meanwhile: the caller is gone
                    raise EOFError

            rewind()
            video = decode(Path(task["path"]), FrameSampling(**task["sampling"]), progress=rewind)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(connection, video)


def _send(connection: Connection, video: DecodedVideo) -> None:
    """Send a result: first all but the frames, then the frames of each clip."""
    clips = [
        {
            "start_seconds": clip.start_seconds,
            "end_seconds": clip.end_seconds,
            "timestamps_seconds": clip.timestamps_seconds[clip.mask].tolist(),
        }
        for clip in video.clips
    ]
    info = asdict(video.info) if video.info else None
    head = {
        "status": video.status,
        "reason": video.reason,
        "info": info,
        "clips": clips,
        "decode_seconds": video.decode_seconds,
    }
    connection.send_bytes(json.dumps(head).encode())
    for clip in video.clips:
        connection.send_bytes(clip.frames[: int(clip.mask.sum())].reshape(-1).data)
