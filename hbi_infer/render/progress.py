"""Progress bars on stderr, where it is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from hbi_infer.index.update import IndexProgress


@contextmanager
def index_progress(doing: str = "indexing") -> Iterator[Callable[[IndexProgress], None]]:
    """Shows a `progress_bar` while an index is updated or read; yields the function that updates it."""
    with progress_bar(doing, "videos") as show:
        yield lambda progress: show(progress.videos_done, progress.videos_total, progress.clips)


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar of bytes with rate and time left, from the first call on; none where stderr is no terminal.

    Yields:
        (bytes done, bytes in total) -> None, which updates the bar.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _bar("downloading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as show:
        yield show


@contextmanager
def build_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar of parts with the time left, from the first call on; none where stderr is no terminal.

    Yields:
        (parts done, parts in total) -> None, which updates the bar.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    with _bar("building", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as show:
        yield show


@contextmanager
def _bar(doing: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(doing, *columns, "left", console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if done < total:
            bar.start()
        else:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


@contextmanager
def progress_bar(doing: str, what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Shows a progress bar with rate and time left, from the first call on; none where stderr is no terminal.

    Args:
        doing: Name of the work, such as "indexing".
        what: Name of the items, in the plural.

    Yields:
        (items done, items in total, clips made so far) -> None, which updates the bar.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what + ", {task.fields[clips_per_second]:.1f} clips/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, clips_per_second=0.0)
    started = time.perf_counter()

    def show(done: int, total: int, clips: int) -> None:
        rate = clips / (time.perf_counter() - started)
        bar.update(task, completed=done, total=total, clips_per_second=rate)
        bar.start()  # only now: nothing is shown when nothing is to be done

    try:
        yield show
    finally:
        bar.stop()
