"""`hbi-infer index --watch`: a line for each change, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hbi_infer.cli.inputs import FolderOptions, load_model, tell_left_out
from hbi_infer.render import stdout

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import FolderIndex
    from hbi_infer.index.update import IndexReport, VideoChange
    from hbi_infer.index.watch import Settling, Situation

IN_WORDS: dict[Situation, str] = {
    "watching": "watching {folder}; Ctrl-C ends it",
    "gone": "{folder} is not there: what is indexed is kept until it is back",
    "empty": "no videos in {folder}: what is indexed is kept until there are some",
    "made_anew": "the index of {folder} was deleted or replaced: it is brought up to date",
    "not_told": "the system does not tell of changes in {folder}: it is looked through every 10 s; --poll SECONDS "
    "says how often",
}
"""Words for each situation."""


def watch_folder(
    videos: Path,
    bundle: str | None,
    device: str,
    options: FolderOptions,
    *,
    poll_seconds: float | None,
    as_json: bool,
) -> None:
    """Keeps the index of a folder up to date until Ctrl-C or SIGTERM, and shows a line for each change."""
    with _until_ended():
        from hbi_infer.api import Index
        from hbi_infer.index.watch import Watcher

        hbi = load_model(bundle, device, options.verbose)
        rebuild = [options.rebuild]

        def open_index() -> Index:
            return Index.open(videos, hbi, location=options.location, rebuild=bool(rebuild and rebuild.pop()))

        def on_situation(situation: Situation, folder: Path) -> None:
            if as_json:
                _emit_line({"event": situation, "folder": str(folder)})
            else:
                stdout.note("note", IN_WORDS[situation].format(folder=folder))

        Watcher(
            open_index=open_index,
            update=_update_with(options),
            on_change=_emit_change if as_json else _show_change,
            on_situation=on_situation,
            poll_seconds=poll_seconds,
        ).run()


@contextmanager
def _until_ended() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end the block, which is no error."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        stdout.note("note", "ended: all that was told is stored")
    finally:
        signal.signal(signal.SIGTERM, before)


def _update_with(
    options: FolderOptions,
) -> Callable[[FolderIndex, Callable[[VideoChange], None], Settling], IndexReport]:
    """Returns a function that updates an index; it says what is left out when that is another number than before."""
    told = [0]

    def on_wait() -> None:
        stdout.note("note", "another process is indexing this folder; waiting until it is done")

    def update(index: FolderIndex, on_change: Callable[[VideoChange], None], holds_back: Settling) -> IndexReport:
        report = index.update(
            finding=options.finding(index.finding),
            workers=options.workers,
            on_wait=on_wait,
            on_change=on_change,
            holds_back=holds_back,
        )
        if len(report.left_out) != told[0]:
            told[0] = len(report.left_out)
            tell_left_out(report.left_out, verbose=options.verbose, also_others=True)
        return report

    return update


def _show_change(change: VideoChange) -> None:
    source = f"{change.source} -> " if change.source else ""
    clips = f" ({change.clips} clips)" if change.clips else ""
    reason = f": {change.reason}" if change.reason else ""
    line = f"{change.kind} {source}{change.path}{clips}{reason}"
    stdout.emit(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {stdout.printable(line)}\n")


def _emit_change(change: VideoChange) -> None:
    document = asdict(change)
    _emit_line({"event": document.pop("kind"), **document})


def _emit_line(document: dict[str, Any]) -> None:
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    stdout.emit(json.dumps({"time": time, **document}).replace("\x7f", "\\u007f") + "\n")
