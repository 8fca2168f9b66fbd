"""Holding Ctrl-C back until work that must not be interrupted is done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the block.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed during the block; raised at its end.
    """
    came: list[int] = []
    # Other threads receive no signals, and a process that ignores Ctrl-C keeps ignoring it.
    ours = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
