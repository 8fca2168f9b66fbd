"""Worker processes that go on from one job to the next, and are replaced when they die."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from hbi_infer.errors import HBIError, VideoError
from hbi_infer.video.packets import open_file
from hbi_infer.video.sandbox import can_confine
from hbi_infer.worker_process import Received, WorkerDiedError, WorkerProcess

MOST_JOBS = 500
"""Number of jobs after which a worker is replaced: what its libraries leak goes with it."""
MOST_ANSWER_BYTES = 16 * 2**20


class MediaWorkers:
    """Workers of a module, started when they are needed. Each thread that calls `run` has one to itself meanwhile.

    Args:
        module: Dotted name of the module whose `work` they call.
        what: Name of their work in messages, such as "make its picture".
    """

    def __init__(self, module: str, what: str) -> None:
        self._module, self._what = module, what
        self._free: SimpleQueue[tuple[WorkerProcess, int]] = SimpleQueue()
        self._lock = threading.Lock()
        self._all: set[WorkerProcess] = set()
        self._is_closed = False

    def run(self, job: dict[str, Any], *, file: Path, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Has a worker do a job; one that was killed from outside is replaced, and the job done again.

        Args:
            job: A JSON object.
            file: The file that it is about, which a worker that is confined gets open.
            seconds: Time limit.

        Returns:
            The document at the end of the job, and the bytes behind it.

        Raises:
            HBIError: The job ended with this error.
            VideoError: The file cannot be opened, or the worker died of it twice.
        """
        with _opened(file) as descriptor:
            try:
                return self._run(job, descriptor, seconds)
            except WorkerDiedError as died:
                if died.was_silent or not died.cause.endswith("SIGKILL"):
                    raise self._fault(died) from died
            try:
                return self._run(job, descriptor, seconds)
            except WorkerDiedError as died:
                raise self._fault(died) from died

    def _fault(self, died: WorkerDiedError) -> VideoError:
        return VideoError(f"the file made the process die that was to {self._what} ({died.cause}): give another video")

    def _run(self, job: dict[str, Any], descriptor: int | None, seconds: float) -> tuple[dict[str, Any], bytes]:
        worker, num_jobs = self._take()
        is_whole = False
        try:
            with worker.time_limit(seconds):
                worker.send(job, file=descriptor)
                try:
                    while (message := worker.receive()).kind != "end":
                        pass
                except HBIError:  # the end of the job, too
                    is_whole = True
                    raise
                except (ValueError, TypeError, KeyError):
                    raise VideoError(f"the file made the process that was to {self._what} send what is none") from None
                content = self._content(worker, message)
            is_whole = True
            return message.document, content
        finally:
            self._put_back(worker, num_jobs + 1, is_whole=is_whole)

    def _content(self, worker: WorkerProcess, message: Received) -> bytes:
        """Receives the bytes behind the end of a job."""
        num_bytes = sum(message.sizes)
        if num_bytes > MOST_ANSWER_BYTES:
            raise VideoError(f"the file made the process that was to {self._what} say too much")
        content = bytearray(num_bytes)
        worker.receive_into(memoryview(content))
        return bytes(content)

    def _take(self) -> tuple[WorkerProcess, int]:
        try:
            return self._free.get_nowait()
        except Empty:
            worker = WorkerProcess(self._module, takes_files=can_confine())
            with self._lock:
                self._all.add(worker)
            return worker, 0

    def _put_back(self, worker: WorkerProcess, num_jobs: int, *, is_whole: bool) -> None:
        if is_whole and num_jobs < MOST_JOBS and not self._is_closed:
            self._free.put((worker, num_jobs))
            return
        with self._lock:
            self._all.discard(worker)
        worker.kill()

    def close(self) -> None:
        """Ends all workers; no thread may be in `run`."""
        self._is_closed = True
        for worker in self._all:
            worker.kill()
        self._all.clear()


@contextmanager
def _opened(file: Path) -> Iterator[int | None]:
    """Opens a file within the block, where workers may open none.

    Raises:
        VideoError: The file cannot be opened, or cannot be a video.
    """
    if not can_confine():
        yield None
        return
    try:
        descriptor = open_file(file)
    except VideoError as error:
        raise VideoError(f"{str(file)!r} {error}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
