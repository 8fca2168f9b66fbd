"""Work in threads: bounded, in time, and not for who has gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from hbi_infer.serve.job_queue import GivenUpError, Job, JobQueue
from hbi_infer.serve.problems import Problem


def request(gone: asyncio.Event | None = None) -> Request:
    """A request whose client goes when the event comes."""

    async def receive() -> dict[str, Any]:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "GET", "headers": []}, receive)


def in_queue(work: Callable[[JobQueue], Coroutine[Any, Any, None]], *, threads: int = 1, waiting: int = 1) -> None:
    async def run() -> None:
        queue = JobQueue("searches", threads=threads, waiting=waiting)
        try:
            await work(queue)
        finally:
            queue.close()

    asyncio.run(run())


def test_what_is_done_comes_back() -> None:
    async def work(queue: JobQueue) -> None:
        assert await queue.run(request(), lambda _: 3, seconds=5) == 3
        with pytest.raises(ValueError, match="no"):
            await queue.run(request(), lambda _: int("no"), seconds=5)
        assert (queue.num_jobs, queue.num_waiting) == (0, 0)

    in_queue(work)


def test_beyond_the_limit_it_is_busy() -> None:
    async def work(queue: JobQueue) -> None:
        go = threading.Event()
        running = [asyncio.ensure_future(queue.run(request(), lambda _: go.wait(5), seconds=5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (queue.num_jobs, queue.num_waiting) == (2, 1)
        with pytest.raises(Problem, match="too many searches") as caught:
            await queue.run(request(), lambda _: 0, seconds=5)
        assert (caught.value.status, int(caught.value.headers["retry-after"]) >= 1) == (503, True)
        go.set()
        assert await asyncio.gather(*running) == [True, True]
        assert await queue.run(request(), lambda _: 4, seconds=5) == 4

    in_queue(work)


def test_what_is_late_is_given_up() -> None:
    seen: list[bool] = []

    def slow(job: Job) -> None:
        time.sleep(0.2)
        with pytest.raises(GivenUpError):
            job.check()
        seen.append(True)

    async def work(queue: JobQueue) -> None:
        never: list[int] = []
        late = asyncio.ensure_future(queue.run(request(), slow, seconds=0.1))
        waits = asyncio.ensure_future(queue.run(request(), lambda _: never.append(1), seconds=0.1))
        for each in (late, waits):
            with pytest.raises(Problem, match=r"longer than 0\.1 s") as caught:
                await each
            assert caught.value.status == 504
        await asyncio.sleep(0.3)
        assert (seen, never, queue.num_jobs) == ([True], [], 0)

    in_queue(work)


def test_nothing_is_done_for_who_has_gone() -> None:
    async def work(queue: JobQueue) -> None:
        gone, go, done = asyncio.Event(), threading.Event(), []
        first = asyncio.ensure_future(queue.run(request(), lambda _: go.wait(5), seconds=5))
        second = asyncio.ensure_future(queue.run(request(gone), lambda _: done.append(1), seconds=5))
        await asyncio.sleep(0.05)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await second
        go.set()
        assert await first
        assert (done, queue.num_jobs) == ([], 0)

    in_queue(work)
