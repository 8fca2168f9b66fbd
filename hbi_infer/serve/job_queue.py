"""Work off the event loop: threads with a bounded queue, a time limit, and an end when the client goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from hbi_infer.serve.problems import busy, too_slow

Result = TypeVar("Result")


class Job:
    """Work of one request; what takes long asks now and then whether anyone still wants it."""

    def __init__(self) -> None:
        self._is_unwanted = threading.Event()

    def give_up(self) -> None:
        """Says that nobody wants the result any more."""
        self._is_unwanted.set()

    def check(self) -> None:
        """Ends the work if nobody wants its result.

        Raises:
            GivenUpError: Nobody does.
        """
        if self._is_unwanted.is_set():
            raise GivenUpError


class GivenUpError(Exception):
    """Work ended early, because its client is gone or its time is over."""


class JobQueue:
    """Threads that do the work of requests.

    Args:
        what: Name of the work in messages, such as "searches".
        threads: Number of jobs that are done at a time.
        waiting: Number of jobs that may wait besides.
        on_stage: Told the stage and the seconds of each job.

    Attributes:
        what: Name of the work.
    """

    def __init__(
        self, what: str, *, threads: int, waiting: int, on_stage: Callable[[str, float], None] = lambda *_: None
    ) -> None:
        self.what, self._on_stage = what, on_stage
        self._threads, self._most = threads, threads + waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"hbi-{what}")
        self._lock = threading.Lock()
        self._num_jobs = 0
        self._mean_seconds = 0.1

    @property
    def num_jobs(self) -> int:
        """Number of jobs that are done or wait."""
        return self._num_jobs

    @property
    def num_waiting(self) -> int:
        """Number of jobs that wait."""
        return max(0, self._num_jobs - self._threads)

    async def run(
        self, request: Request | None, work: Callable[[Job], Result], *, seconds: float, stage: str = "look"
    ) -> Result:
        """Does work in a thread and waits for it.

        Args:
            request: The request, whose body was read; None if nothing tells when its client goes.
            work: Function that is called.
            seconds: Time limit, the wait included.
            stage: Name of the work in the metrics.

        Raises:
            Problem: Too much waits already, or it took too long.
            ClientDisconnect: The client went away.
        """
        job = Job()
        future = self._submit(work, job, stage)
        wanted = asyncio.ensure_future(asyncio.wrap_future(future))
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if request is not None:
            gone = asyncio.ensure_future(wait_until_gone(request))
        try:
            await asyncio.wait((wanted, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done():
                return await wanted
            if gone.done():
                raise ClientDisconnect
            raise too_slow(seconds)
        finally:
            job.give_up()
            gone.cancel()
            if not wanted.done():
                future.cancel()  # what waits is never begun
                wanted.cancel()

    def check_room(self, num_coming: int = 0) -> None:
        """Refuses a job, `num_coming` others being on their way here.

        Raises:
            Problem: Too much waits already.
        """
        if self._num_jobs + num_coming >= self._most:
            raise busy(self.what, max(1, round(self._num_jobs * self._mean_seconds / self._threads)))

    def _submit(self, work: Callable[[Job], Result], job: Job, stage: str) -> Future[Result]:
        with self._lock:
            self.check_room()
            self._num_jobs += 1
        future = self._executor.submit(self._do, work, job, stage)
        future.add_done_callback(self._count_down)
        return future

    def _do(self, work: Callable[[Job], Result], job: Job, stage: str) -> Result:
        job.check()
        started = time.monotonic()
        try:
            return work(job)
        finally:
            taken = time.monotonic() - started
            self._mean_seconds = 0.9 * self._mean_seconds + 0.1 * taken
            self._on_stage(stage, taken)

    def _count_down(self, future: Future[Result]) -> None:
        with self._lock:
            self._num_jobs -= 1
        if not future.cancelled():
            future.exception()  # one that nobody waits for is no news

    def close(self) -> None:
        """Lets running jobs end and drops those that wait."""
        self._executor.shutdown(wait=True, cancel_futures=True)


async def wait_until_gone(request: Request) -> None:
    """Returns when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
