"""Captions as files: JSON Lines, CSV, and subtitles; and the file beside them that an interrupted run goes on from.

Captions go into `OUT.partial` one by one, a line each, behind a header that says which model writes them, of which
videos, and how. When all are there, what was asked for is written beside its place and renamed over it.
"""

from __future__ import annotations

import csv
import fcntl
import html
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

from hbi_infer.errors import InputError
from hbi_infer.files import cannot_write, check_target, exists, is_file, is_folder, write_whole
from hbi_infer.index.clip_tokens import ClipPlace
from hbi_infer.options import Decoding
from hbi_infer.tasks.caption import Caption
from hbi_infer.video.discovery import find_videos

Format: TypeAlias = Literal["jsonl", "csv", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUBTITLES = ("srt", "vtt")

COLUMNS = ("file", "clip", "start_seconds", "end_seconds", "caption", "log_probability")

MARK = "hbi_infer_captions"
"""The key of a header that tells what the file is; its value is the version of the format."""

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CaptionTarget:
    """What to write where.

    Attributes:
        videos: The folder that is captioned, or the video.
        out: A file; or a folder, for subtitles of a folder: they belong to one video each.
        format: Of the file or files.
        overwrite: Whether what exists may be overwritten.
    """

    videos: Path
    out: Path
    format: Format
    overwrite: bool = False

    @property
    def partial(self) -> Path:
        """The file that an interrupted run goes on from."""
        out = self.out.absolute()
        return out.with_name(f"{out.name}.partial")

    def check(self) -> None:
        """Refuse what could not be written, before there is anything to write.

        Raises:
            InputError: A file exists and is not to be overwritten, or there is no folder to write to.
        """
        if not self._is_folder:
            check_target(self.out, overwrite=self.overwrite)
            return
        if self.out.suffix.lower() == f".{self.format}" or is_file(self.out):
            raise InputError(
                f"{self.out} would hold the subtitles of every video in {self.videos}: give the name of a folder, with "
                f"--format {self.format}"
            )
        check_target(self.out, overwrite=True)
        for path in self._subtitle_paths([]).values():
            if exists(self.out / path):
                check_target(self.out / path, overwrite=self.overwrite)

    def write(self, captions: Sequence[Caption], place: Callable[[Path], str]) -> None:
        """Write what was asked for; at every moment each file is the old one, or the whole new one.

        Args:
            captions: In order.
            place: How the path of a video is written in CSV.

        Raises:
            InputError: A file cannot be written, or exists by now and is not to be overwritten.
        """
        if not self._is_folder:
            self._replace(self.out, rendered(captions, self.format, place))
            return
        of_video: dict[Path, list[Caption]] = defaultdict(list)
        for caption in captions:
            of_video[caption.path].append(caption)
        paths = self._subtitle_paths(of_video)
        for video, some in of_video.items():
            self._replace(self.out / paths[video], rendered(some, self.format, place))

    @property
    def _is_folder(self) -> bool:
        return self.format in SUBTITLES and is_folder(self.videos)

    def _subtitle_paths(self, captioned: Iterable[Path]) -> dict[Path, Path]:
        """For each video of the folder its file of subtitles, below `out`, called as the video is.

        Of videos that differ in nothing but their suffix, each keeps it in the name of its subtitles.
        """
        folder = self.videos.resolve()
        inside = {path: path.relative_to(folder) for path in {*find_videos(folder), *captioned}}
        count = Counter(path.with_suffix("") for path in inside.values())
        return {
            video: path.with_name(f"{path.stem if count[path.with_suffix('')] == 1 else path.name}.{self.format}")
            for video, path in inside.items()
        }

    def _replace(self, path: Path, content: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        write_whole(path, content.encode("utf-8", "surrogateescape"), overwrite=self.overwrite)


class UnfinishedCaptions:
    """The captions of a run that is not at its end, in a file that survives it; one process has it at a time.

    Args:
        path: Of the file. One that an equal run left is gone on with.
        header: Which run it is; see `run_header`.
        overwrite: Whether to begin anew where the file is another run's, or none of ours.

    Attributes:
        path: Of the file.
        captions: What is there, by clip.

    Raises:
        InputError: The file is of another run, none of ours, cannot be written, or is being written by another process.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.captions: dict[ClipPlace, Caption] = {}
        try:
            # Without a buffer: what the disk did not take is not tried once more when the file is closed.
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._begin(header, overwrite)
        except BaseException:
            self._file.close()
            raise

    def add(self, clip: ClipPlace, caption: Caption) -> None:
        """Write a caption down, so that it is kept whatever happens next.

        Raises:
            InputError: The disk does not take it.
        """
        self._append({"file_version": clip.file_version, **caption.to_json()})
        self.captions[clip] = caption

    def remove(self) -> None:
        """Remove the file, which is not needed any more."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> UnfinishedCaptions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.captions:
            self.remove()  # there is nothing to go on from
        self._file.close()

    def _begin(self, header: dict[str, Any], overwrite: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is writing {self.path}: wait until it is done, or give another --out"
            ) from error
        lines = self._file.read().splitlines(keepends=True)
        if lines and (problem := _difference(lines[0], header)):
            if not overwrite:
                raise InputError(f"{self.path} {problem}, or give --force to begin anew")
            lines = []
        end = 0
        for number, line in enumerate(lines):
            if number:
                # The last line may be cut off, where the machine stopped.
                if not line.endswith(b"\n") or (found := _parsed(line)) is None:
                    break
                self.captions[found[0]] = found[1]
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
        if not end:
            self._append(header)

    def _append(self, document: dict[str, Any]) -> None:
        line = json.dumps(document).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise cannot_write(self.path, error) from error


def run_header(model_sha256: str, videos: Path, options: Decoding) -> dict[str, Any]:
    """What tells a run from others: captions of another one do not belong into the same file."""
    return {MARK: FORMAT_VERSION, "model": model_sha256, "videos": str(videos.resolve()), **asdict(options)}


def rendered(captions: Iterable[Caption], format: Format, place: Callable[[Path], str]) -> str:  # noqa: A002
    """Captions as the text of a file; `place` says how the path of a video is written in CSV."""
    if format == "jsonl":
        return "".join(json.dumps(caption.to_json()) + "\n" for caption in captions)
    if format == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *fields_of(captions, place)])
        return buffer.getvalue()
    # An empty cue would end the one before it.
    shown = [(caption, text) for caption in captions if (text := " ".join(caption.text.split()))]
    if format == "srt":
        cues = [
            f"{number}\n{_span(caption, ',')}\n{_printable(text).replace('-->', '→')}\n\n"
            for number, (caption, text) in enumerate(shown, start=1)
        ]
        return "".join(cues)
    cues = [f"{_span(caption, '.')}\n{html.escape(_printable(text), quote=False)}\n\n" for caption, text in shown]
    return "".join(["WEBVTT\n\n", *cues])


def fields_of(captions: Iterable[Caption], place: Callable[[Path], str]) -> list[tuple[str, ...]]:
    """Captions as lines of `COLUMNS`."""
    return [
        (
            place(caption.path),
            str(caption.clip),
            f"{caption.start_seconds:.3f}",
            f"{caption.end_seconds:.3f}",
            caption.text,
            f"{caption.log_probability:.6f}",
        )
        for caption in captions
    ]


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _span(caption: Caption, mark: str) -> str:
    """When a cue is shown; at least a millisecond, or players refuse it."""
    start = round(caption.start_seconds * 1000)
    end = max(round(caption.end_seconds * 1000), start + 1)
    return f"{_cue_time(start, mark)} --> {_cue_time(end, mark)}"


def _cue_time(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{milliseconds:03}"


def _difference(first_line: bytes, header: dict[str, Any]) -> str:
    """What is wrong with a header, and what to do but for --force; empty if it is equal."""
    try:
        found = json.loads(first_line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or MARK not in found:
        return "is no file that captioning left: move it away"
    differing = [key for key in header if found.get(key) != header[key]]
    if not differing:
        return ""
    shown = [
        f"another {key}" if key in ("model", MARK) else f"{key} {found.get(key)} (now {header[key]})"
        for key in differing
    ]
    return f"was begun with {', '.join(shown)}: give the same to go on with it"


def _parsed(line: bytes) -> tuple[ClipPlace, Caption] | None:
    """A line of a partial file; None if it is damaged."""
    try:
        document = json.loads(line)
        version = document.pop("file_version")
        caption = Caption(**document | {"path": Path(document["path"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    clip = ClipPlace(
        path=caption.path,
        clip=caption.clip,
        start_seconds=caption.start_seconds,
        end_seconds=caption.end_seconds,
        file_version=version,
    )
    return clip, caption
