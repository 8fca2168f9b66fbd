"""Ends work of a runtime that takes too long, and lets Ctrl-C end it: a graph may hold a loop that never ends.

Python handles Ctrl-C between two of its own steps, so not while a runtime computes. The operating system's handler
writes to a socket in the meantime, which a thread listens to that also knows when each piece of work is late. It costs
a microsecond or two for each run of a graph.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from hbi_engines.errors import EngineError

LIMIT_SECONDS = 3600.0
"""Default limit for loading a graph, and for running it once: a large model takes minutes for 16 clips on one core."""
STEP_SECONDS = 0.5
"""Time after which waiting looks for Ctrl-C where the system does not end it by itself."""
FOREVER = float("inf")
LONGEST_SLEEP = 86_400.0

Result = TypeVar("Result")


class StoppedInTime:
    """Work in this thread that another thread stops when it is late or when Ctrl-C is pressed.

    Args:
        stop: Makes the work end soon, with any error; called from another thread.
        seconds: Limit of the work.
        what: Name of the work in messages, such as "a run".

    Raises:
        EngineError: The work was late.
    """

    __slots__ = ("_seconds", "_what", "deadline", "hears_ctrl_c", "is_late", "stop")

    def __init__(self, stop: Callable[[], None], seconds: float, what: str) -> None:
        self.stop, self._seconds, self._what = stop, seconds, what
        self.deadline = FOREVER
        self.hears_ctrl_c = self.is_late = False

    def __enter__(self) -> Self:
        self.deadline = time.monotonic() + self._seconds
        _watcher_here().add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _watcher_here().remove(self)
        if self.is_late and not isinstance(error, KeyboardInterrupt):
            raise late(self._what, self._seconds) from error


def wait_for(work: Callable[[], Result], seconds: float, what: str, stop: Callable[[], None] = lambda: None) -> Result:
    """Does work in another thread and waits for it; work that cannot be stopped goes on until the process ends.

    Args:
        work: Function that is called.
        seconds: Limit of the work.
        what: Name of the work in messages, such as "loading".
        stop: Makes the work end soon, if it can.

    Raises:
        EngineError: The work was late.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    is_done = threading.Event()

    def do() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)
        is_done.set()

    threading.Thread(target=do, daemon=True).start()
    deadline = time.monotonic() + seconds
    try:
        while not is_done.wait(min(STEP_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise late(what, seconds)
    finally:
        if not is_done.is_set():
            stop()
    if errors:
        raise errors[0]
    return results[0]


def late(what: str, seconds: float) -> EngineError:
    """Returns the error of work that took too long."""
    return EngineError(
        f"{what} took longer than the limit of {seconds:g} s and was given up: use a graph that ends, or raise "
        "limit_seconds"
    )


class _Watcher:
    """A thread that stops work, for all threads of a process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._writes, self._reads = socket.socketpair()
        self._writes.setblocking(False)
        self._reads.setblocking(False)
        self._socket, self._main = self._writes.fileno(), threading.main_thread().ident
        self._lock = threading.Lock()
        self._working: set[StoppedInTime] = set()
        self._looks_at = FOREVER
        threading.Thread(target=self._watch, daemon=True, name="time limits of graphs").start()

    def add(self, work: StoppedInTime) -> None:
        if threading.get_ident() == self._main:
            others = signal.set_wakeup_fd(self._socket, warn_on_full_buffer=False)
            work.hears_ctrl_c = others in (-1, self._socket)
            if not work.hears_ctrl_c:  # an event loop has a socket of its own
                signal.set_wakeup_fd(others)
        with self._lock:
            self._working.add(work)
            if work.deadline < self._looks_at:
                self._looks_at = work.deadline
                with suppress(BlockingIOError):  # full: it is awake
                    self._writes.send(b"\0")

    def remove(self, work: StoppedInTime) -> None:
        with self._lock:
            self._working.discard(work)
        if work.hears_ctrl_c:
            signal.set_wakeup_fd(-1)

    def _watch(self) -> None:
        while True:
            # It sleeps until the first of them is late, be it done by then or not, so that few runs wake it.
            with self._lock:
                self._looks_at = min((work.deadline for work in self._working), default=FOREVER)
                rest = self._looks_at - time.monotonic()
            ready, _, _ = select.select([self._reads], [], [], min(max(0.0, rest), LONGEST_SLEEP))
            came = self._reads.recv(4096) if ready else b""
            # Another handler may want the work to end by itself.
            is_ctrl_c = signal.SIGINT in came and signal.getsignal(signal.SIGINT) is signal.default_int_handler
            with self._lock:
                now = time.monotonic()
                for work in list(self._working):
                    work.is_late = work.deadline <= now
                    if work.is_late or (work.hears_ctrl_c and is_ctrl_c):
                        self._working.discard(work)
                        work.stop()


_watcher: _Watcher | None = None


def _watcher_here() -> _Watcher:
    """Returns the watcher of this process; a forked one has its parent's, whose thread it lacks."""
    global _watcher
    if _watcher is None or _watcher.process != os.getpid():
        _watcher = _Watcher()
    return _watcher
