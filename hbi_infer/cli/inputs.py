"""Shared parts of the commands of `hbi-infer`: models, texts and clips from the arguments, documents, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.files import exists, is_folder
from hbi_infer.options import Finding
from hbi_infer.render import stdout
from hbi_infer.render.progress import index_progress

if TYPE_CHECKING:
    from hbi_infer.api import HBI, Index
    from hbi_infer.catalog.listener import Listener
    from hbi_infer.index.clip_tokens import Clips
    from hbi_infer.index.store import VideoFault
    from hbi_infer.index.update import IndexReport
    from hbi_infer.index.verify import Verification
    from hbi_infer.model.encoder import Encoder
    from hbi_infer.render.tables import Style
    from hbi_infer.video.discovery import LeftOut

SOME_FAILED = 3
"""Exit code of a command that could not do its work for every video."""

MOST_LISTED = 1000
"""Largest number of files and folders that are listed as left out for one reason; all are counted."""


@contextmanager
def catalog_listener() -> Iterator[Listener]:
    """Yields what shows how a model is got: a note for each step, and bars."""
    from hbi_infer.catalog.listener import Listener
    from hbi_infer.render.progress import build_bar, download_bar

    with download_bar() as downloaded, build_bar() as built:
        yield Listener(lambda text: stdout.note("note", text), downloaded, built)


def find_bundle(name: str | None) -> Path:
    """Returns the bundle that a name means; a model of the hub is got if it is not here."""
    from hbi_infer.catalog.catalog import resolve

    with catalog_listener() as listener:
        return resolve(name, listener)


def load_model(bundle: str | None, device: str, verbose: bool) -> HBI:
    """Loads the model and shows its notice."""
    from hbi_infer.api import HBI

    hbi = HBI.load(find_bundle(bundle), device=device)
    if hbi.bundle.manifest.notice:
        stdout.note("note", hbi.bundle.manifest.notice)
    if verbose:
        stdout.note("note", f"model {hbi.bundle.manifest.name} on {hbi.device_reason}")
    return hbi


def output_style(as_json: bool, as_csv: bool) -> Style:
    """Returns the form in which results are shown."""
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    if as_json or as_csv:
        return "json" if as_json else "csv"
    return "table" if sys.stdout.isatty() else "tabs"


def read_lines(path: Path | None) -> list[str]:
    """Returns the lines of a text file that are not blank."""
    if path is None:
        return []
    try:
        # Only line feeds end a line: `str.splitlines` and reading as text know others, which a sentence may hold.
        lines = [line.strip() for line in path.read_bytes().decode("utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"cannot read {path} ({reason}): give a UTF-8 text file, a sentence on each line") from error
    if not any(lines):
        raise InputError(f"{path} is empty: give a text file a sentence on each line")
    return [line for line in lines if line]


def check_texts(texts: Sequence[str]) -> None:
    """Refuses empty texts before minutes of indexing.

    Raises:
        InputError: A text is empty.
    """
    if not all(text.strip() for text in texts):
        raise InputError("a query is empty: give a sentence that says what to find")


def as_list(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Splits a repeatable, comma-separated option into unique names; None if it was not given."""
    names = [name.strip() for text in given or () for name in text.split(",")]
    return tuple(dict.fromkeys(filter(None, names))) or None


def whole_numbers(given: str, option: str) -> tuple[int, ...]:
    """Splits a comma-separated option into unique whole numbers."""
    try:
        return tuple(dict.fromkeys(int(part) for part in given.split(",")))
    except ValueError as error:
        raise typer.BadParameter(f"{option} is {given!r}; give whole numbers such as 1,8") from error


@dataclass(frozen=True)
class FolderOptions:
    """Options of the commands that use the index of a folder."""

    location: Path | None = None
    workers: int | None = None
    rebuild: bool = False
    no_update: bool = False
    exclude: list[str] | None = None
    all_files: bool | None = None
    verbose: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.rebuild and self.no_update:
            raise typer.BadParameter("--rebuild indexes everything anew and --no-update nothing: give one of them")
        if self.no_update and not (self.exclude is None and self.all_files is None):
            raise typer.BadParameter("--exclude and --all-files say what to index and --no-update indexes nothing")

    def finding(self, known: Finding) -> Finding:
        """Returns which files are videos: as the index knows it, but for what is given."""
        exclude = known.exclude if self.exclude is None else tuple(self.exclude)
        return Finding(exclude=exclude, all_files=known.all_files if self.all_files is None else self.all_files)

    def checked(self, video: Path) -> FolderOptions:
        """Returns these options; refuses them as wrong usage if any is given and `video` is no folder."""
        if self != FolderOptions() and not is_folder(video):
            raise typer.BadParameter(
                "--index, --workers, --rebuild, --no-update, --exclude and --all-files are for a folder of videos; "
                f"{video} is none"
            )
        return self


@contextmanager
def updated_index(hbi: HBI, videos: Path, options: FolderOptions) -> Iterator[tuple[Index, IndexReport | None]]:
    """Opens the index of a folder, updates it unless asked not to, and yields it with the report of the update.

    Raises:
        IndexStoreError: Another process made the index anew, before or while it was used.
    """
    from hbi_infer.api import Index

    if options.no_update and is_folder(videos) and not exists(Index.location(videos, hbi, options.location)):
        raise _nothing_indexed(videos)
    with Index.open(
        videos, hbi, location=options.location, rebuild=options.rebuild, read_only=options.no_update
    ) as opened:
        report = None if options.no_update else update_index(opened, options)
        if not opened.store.num_clips():
            _check_not_made_anew(opened)
            _tell_why_there_is_nothing(failures_of(opened, report), videos)
        yield opened, report
        _check_not_made_anew(opened)


def _check_not_made_anew(opened: Index) -> None:
    if opened.store.was_made_anew():
        raise IndexStoreError(
            f"another process made the index {opened.store.path} anew meanwhile: there may be more to find; try again"
        )


def failures_of(opened: Index, report: IndexReport | None) -> list[VideoFault]:
    """Returns the fault of every video that could not be indexed or looked at, sorted by path."""
    return sorted({*opened.failures(), *(report.failed if report else ())}, key=attrgetter("path", "reason"))


def _tell_why_there_is_nothing(failures: Sequence[VideoFault], videos: Path) -> NoReturn:
    """Lists the videos that cannot be read, if that is why no clip is indexed, and raises an error."""
    if not failures:
        raise _nothing_indexed(videos)
    for fault in failures:
        stdout.note("warning", f"{fault.path} {fault.reason}")
    raise InputError(
        f"none of the {len(failures)} videos in {videos} can be read: give a folder of videos that can be played"
    )


def _nothing_indexed(videos: Path) -> InputError:
    return InputError(f"nothing of {videos} is indexed: leave out --no-update")


def update_index(
    opened: Index, options: FolderOptions, *, retry_failed: bool = False, tell_others: bool = False
) -> IndexReport:
    """Indexes what is new, with a progress bar, and says what is left out.

    Args:
        opened: The index.
        options: How to fill it.
        retry_failed: Whether to try failed videos again.
        tell_others: Whether to speak of left out files also where none of them looks like a video.
    """

    def on_wait() -> None:
        stdout.note("note", "another process is indexing this folder; waiting until it is done")

    with index_progress() as progress:
        report = opened.update(
            finding=options.finding(opened.finding),
            retry_failed=retry_failed,
            workers=options.workers,
            progress=progress,
            on_wait=on_wait,
        )
    for fault in report.partial:
        stdout.note("warning", f"{fault.path} is indexed in part: {fault.reason}")
    if report.left_out:
        tell_left_out(report.left_out, verbose=options.verbose, also_others=tell_others)
    return report


def tell_left_out(left_out: Sequence[LeftOut], *, verbose: bool, also_others: bool) -> None:
    """Says what is left out, by number or, up to `MOST_LISTED` for each reason, by name."""
    from hbi_infer.video.discovery import IN_WORDS, by_reason, summary

    if not verbose:
        if also_others or any(each.reason != "other_suffix" for each in left_out):
            stdout.note("note", f"left out: {summary(left_out)}; --verbose lists them")
        return
    for reason, paths in by_reason(left_out).items():
        for path in paths[:MOST_LISTED]:
            stdout.note("note", f"left out: {path}, {IN_WORDS[reason]}")
        if len(paths) > MOST_LISTED:
            stdout.note("note", f"left out: {len(paths) - MOST_LISTED} more, {IN_WORDS[reason]}")


def verify_index(hbi: HBI, videos: Path, location: Path | None) -> Verification:
    """Reads a whole index, with a progress bar, and says what was found."""
    from hbi_infer.api import Index

    with index_progress("verifying") as progress:
        found = Index.verify(videos, hbi, location=location, progress=progress)
    if found.fault:
        stdout.note("warning", f"the index is damaged ({found.fault}): what cannot be read is indexed anew")
    for fault in found.damaged:
        stdout.note("warning", f"{fault.path} {fault.reason}: it is indexed anew")
    stdout.note("note", f"{found.videos} videos with {found.clips} clips are as they were indexed")
    return found


@dataclass(frozen=True)
class FoundClips:
    """Clips for a task, the JSON document about them, and the fault of each video that has none."""

    clips: Clips
    document: dict[str, Any]
    failures: Sequence[VideoFault]


@contextmanager
def find_clips(hbi: HBI, video: Path, options: FolderOptions) -> Iterator[FoundClips]:
    """Yields the clips of a folder, indexed first, or those of a video, read from an index or decoded."""
    from hbi_infer.api import Index
    from hbi_infer.index.clip_tokens import clips_of_index, clips_of_video, video_tokens

    if not is_folder(video):
        with Index.open_for(video, hbi) or nullcontext() as index:
            clips = clips_of_video(video_tokens(hbi, video, index))
            yield FoundClips(clips, {"model": model_document(hbi), "video": str(video), "source": clips.source}, [])
        return
    with updated_index(hbi, video, options) as (opened, report):
        yield FoundClips(clips_of_index(opened), index_document(opened, report), failures_of(opened, report))


def as_given(videos: Path) -> Callable[[Path], str]:
    """Returns a function that writes paths of videos in the way in which the folder, or the video, was given."""
    if not is_folder(videos):
        return str
    folder = videos.resolve()
    return lambda path: str(videos / path.relative_to(folder))


def end_with(failures: Sequence[VideoFault], done: str, *, also_failed: bool = False) -> NoReturn:
    """Lists the videos that failed, and exits with a code that says whether there are any, or `also_failed`."""
    for fault in failures:
        may_pass = fault.problem in ("crashed", "too_slow")
        again = "; try again with hbi-infer index --retry-failed" if may_pass else ""
        stdout.note("warning", f"{fault.path} cannot be {done}: {fault.reason}{again}")
    raise typer.Exit(SOME_FAILED if failures or also_failed else 0)


def model_document(hbi: Encoder) -> dict[str, Any]:
    """Describes a model for JSON."""
    return {"name": hbi.bundle.manifest.name, "path": str(hbi.bundle.path), "sha256": hbi.bundle.sha256}


def index_document(opened: Index, report: IndexReport | None) -> dict[str, Any]:
    """Describes a model, an index and its update for JSON."""
    from hbi_infer.video.discovery import by_reason

    update = None
    if report is not None:
        faults = {name: [fault.to_json() for fault in getattr(report, name)] for name in ("partial", "failed")}
        counts = asdict(replace(report, partial=[], failed=[], left_out=[]))
        left_out = {
            reason: {"count": len(paths), "paths": paths[:MOST_LISTED]}
            for reason, paths in by_reason(report.left_out).items()
        }
        update = counts | faults | {"left_out": left_out, "clips_per_second": report.clips_per_second}
    return {
        "model": model_document(opened.encoder),
        "videos": str(opened.folder),
        "index": {
            "path": str(opened.store.path),
            "clips": opened.store.num_clips(),
            "failed": [fault.to_json() for fault in opened.failures()],
        },
        "update": update,
    }
