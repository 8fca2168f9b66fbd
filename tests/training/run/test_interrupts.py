"""Ctrl-C waits for the end of a block; the work in it is finished."""

from __future__ import annotations

import signal
from collections.abc import Callable
from threading import Thread

import pytest

from hbi_training.run.interrupts import interrupts_held


def interrupt() -> None:
    """What Ctrl-C does in Python, whatever other libraries did with the system's signals."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def interrupted(work: Callable[[], None]) -> None:
    with interrupts_held():
        interrupt()
        interrupt()
        work()


def test_ctrl_c_comes_at_the_end_of_the_block() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: done.append("the rest"))
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_comes_through() -> None:
    with pytest.raises(KeyError):
        interrupted(lambda: {}["nothing"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_others_and_other_threads_are_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    errors: list[BaseException] = []

    def hold() -> None:
        try:
            with interrupts_held():
                pass
        except BaseException as error:  # noqa: BLE001 - a thread's errors would be lost
            errors.append(error)

    thread = Thread(target=hold)
    thread.start()
    thread.join()
    assert not errors
