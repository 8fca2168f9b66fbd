"""Functions that are told how a model is got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Listener:
    """Functions that are called while a model is got; by default they do nothing.

    Attributes:
        step: Receives a line for each thing that is begun.
        downloaded: Receives (bytes done, bytes in total) of a download.
        built: Receives (parts done, parts in total) of a build that takes long.
    """

    step: Callable[[str], None] = lambda _: None
    downloaded: Callable[[int, int], None] = lambda *_: None
    built: Callable[[int, int], None] = lambda *_: None
