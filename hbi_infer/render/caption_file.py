"""Writes captions as JSON Lines, CSV or subtitles, and the file that an interrupted run goes on from.

Captions go into `OUT.partial` one by one, a line each, after a header that names the model, the videos and the options.
When all are there, the wanted file is written beside its place and renamed over it.
"""

from __future__ import annotations

import html
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

from hbi_engines.operating_system import lock
from hbi_infer.errors import InputError
from hbi_infer.files import (
    cannot_write,
    check_target,
    exists,
    fitting_name,
    is_file,
    is_folder,
    longest_name,
    write_whole,
)
from hbi_infer.index.clip_tokens import ClipPlace
from hbi_infer.options import Decoding
from hbi_infer.render.output_names import output_paths
from hbi_infer.render.spreadsheet import csv_text
from hbi_infer.tasks.caption import Caption
from hbi_infer.video.discovery import find_videos

Format: TypeAlias = Literal["jsonl", "csv", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUBTITLES = ("srt", "vtt")

COLUMNS = ("file", "clip", "start_seconds", "end_seconds", "caption", "log_probability")

MARK = "hbi_infer_captions"
"""Key that marks a header; its value is `FORMAT_VERSION`."""

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CaptionTarget:
    """File or files for the captions.

    Attributes:
        videos: The captioned folder or video.
        out: A file; for subtitles of a folder, a folder with a file for each video.
        format: Format of the file or files.
        overwrite: Whether existing files may be overwritten.
    """

    videos: Path
    out: Path
    format: Format
    overwrite: bool = False

    @property
    def partial(self) -> Path:
        """Path of the file that an interrupted run goes on from."""
        out = self.out.absolute()
        return out.with_name(fitting_name(out.name, ".partial", longest_name(out.parent)))

    def check(self) -> None:
        """Refuses files that cannot be written, before there is anything to write.

        Raises:
            InputError: A file exists and may not be overwritten, or there is no folder to write to.
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
            if _is_there(self.out / path):
                check_target(self.out / path, overwrite=self.overwrite)

    def write(self, captions: Sequence[Caption], place: Callable[[Path], str]) -> dict[Path, InputError]:
        """Writes the files; at every moment each file is the old one, or the whole new one.

        Args:
            captions: Captions of all clips, in order.
            place: Returns the path of a video as it is written in CSV.

        Returns:
            Error of each video whose file cannot be written, or exists by now and may not be overwritten.

        Raises:
            InputError: No file can be written.
        """
        if not self._is_folder:
            self._replace(self.out, rendered(captions, self.format, place))
            return {}
        of_video: dict[Path, list[Caption]] = defaultdict(list)
        for caption in captions:
            of_video[caption.path].append(caption)
        paths = self._subtitle_paths(of_video)
        errors: dict[Path, InputError] = {}
        for video, some in of_video.items():
            try:
                self._replace(self.out / paths[video], rendered(some, self.format, place))
            except InputError as error:
                errors[video] = error
        if errors and len(errors) == len(of_video):
            raise next(iter(errors.values()))
        return errors

    @property
    def _is_folder(self) -> bool:
        return self.format in SUBTITLES and is_folder(self.videos)

    def _subtitle_paths(self, captioned: Iterable[Path]) -> dict[Path, PurePath]:
        """Returns the subtitle file of each video in the folder, relative to `out`; see `output_paths`."""
        folder = self.videos.resolve()
        inside = {path: path.relative_to(folder) for path in sorted({*find_videos(folder), *captioned})}
        paths = output_paths(inside.values(), f".{self.format}", longest_name(self.out))
        return {video: paths[path] for video, path in inside.items()}

    def _replace(self, path: Path, content: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        write_whole(path, content.encode("utf-8", "surrogateescape"), overwrite=self.overwrite)


class UnfinishedCaptions:
    """Captions of an unfinished run, in a file that survives it; one process holds it at a time.

    Args:
        path: Path of the file; a run goes on with the file that an equal run left.
        header: Identity of the run; see `run_header`.
        overwrite: Whether to begin anew where the file belongs to another run, or is no such file.

    Attributes:
        path: Path of the file.
        captions: Captions in the file, by clip.

    Raises:
        InputError: The file belongs to another run, is no such file, cannot be written, or is held by another process.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.captions: dict[ClipPlace, Caption] = {}
        try:
            # A buffer would be written once more on closing, after a full disk was reported.
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._begin(header, overwrite)
        except BaseException:
            self._file.close()
            raise

    def add(self, clip: ClipPlace, caption: Caption) -> None:
        """Writes a caption to the file at once, so that it is kept whatever happens next.

        Raises:
            InputError: The file cannot be written.
        """
        self._append({"file_version": clip.file_version, **caption.to_json()})
        self.captions[clip] = caption

    def remove(self) -> None:
        """Removes the file."""
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
            lock(self._file)
        except OSError as error:
            raise InputError(
                f"another process is writing {self.path}: wait until it is done, or give another --out"
            ) from error
        lines = list(io.BytesIO(self._file.read()))
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
    """Returns the identity of a run: captions of another one do not belong into the same file."""
    return {MARK: FORMAT_VERSION, "model": model_sha256, "videos": str(videos.resolve()), **asdict(options)}


def rendered(captions: Iterable[Caption], format: Format, place: Callable[[Path], str]) -> str:  # noqa: A002
    """Returns captions as the text of a file; `place` gives the path of a video as it is written in CSV."""
    if format == "jsonl":
        return "".join(json.dumps(caption.to_json()) + "\n" for caption in captions)
    if format == "csv":
        return csv_text([COLUMNS, *fields_of(captions, place)])
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
    """Returns captions as rows of `COLUMNS`."""
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


def _is_there(path: Path) -> bool:
    """Returns whether there is anything at a path; what cannot be looked at is told when it is written."""
    try:
        return exists(path)
    except InputError:
        return False


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _span(caption: Caption, mark: str) -> str:
    """Returns the time span of a cue, at least a millisecond long: players refuse an empty one."""
    start = round(caption.start_seconds * 1000)
    end = max(round(caption.end_seconds * 1000), start + 1)
    return f"{_cue_time(start, mark)} --> {_cue_time(end, mark)}"


def _cue_time(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{milliseconds:03}"


def _difference(first_line: bytes, header: dict[str, Any]) -> str:
    """Returns how a header differs and how to mend that without --force; empty if it is equal."""
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
    """Reads a line of a partial file; returns None if it is damaged."""
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
