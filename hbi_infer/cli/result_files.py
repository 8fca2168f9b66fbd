"""Files that a search writes beside its results: moments as videos, a contact sheet, a timeline; and the player."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hbi_engines.operating_system import has_desktop, open_in_desktop
from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import check_target, exists, is_folder
from hbi_infer.render import stdout

if TYPE_CHECKING:
    from hbi_infer.tasks.search import Match
    from hbi_infer.video.cutting import SavedClip

Answers = Sequence[tuple[str, Sequence["Match"]]]
"""Each query with its results."""


@dataclass
class ResultFiles:
    """Files that a search writes.

    Attributes:
        clips: Folder for the moments.
        sheet: Contact sheet.
        timeline: Timeline for video editors.
        opens: Whether the first result is opened in the desktop's player.
        overwrite: Whether sheet and timeline replace files that exist.
        failed: Path of each video that could not be read, with why.
    """

    clips: Path | None = None
    sheet: Path | None = None
    timeline: Path | None = None
    opens: bool = False
    overwrite: bool = False
    failed: dict[Path, VideoError] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write or to open."""
        return not (self.clips or self.sheet or self.timeline or self.opens)

    def check(self) -> None:
        """Refuses what could not be written, before minutes of indexing.

        Raises:
            InputError: A format is not known, a package is missing, or a file exists or has no folder.
        """
        if self.sheet:
            from hbi_infer.render.contact_sheet import ANOTHER_SHEET, check_sheet

            check_sheet(self.sheet)
            check_target(self.sheet, overwrite=self.overwrite, instead=ANOTHER_SHEET)
        if self.timeline:
            from hbi_infer.render.timeline import ANOTHER_EDL, check_timeline

            check_timeline(self.timeline)
            check_target(self.timeline, overwrite=self.overwrite, instead=ANOTHER_EDL)
        if self.opens and not has_desktop():
            raise InputError("there is no desktop here to open a result on: leave out --open")
        if self.clips and exists(self.clips) and not is_folder(self.clips):
            raise InputError(f"{self.clips} is a file: give a folder to --save-clips")

    def write(self, answers: Answers, place: Callable[[Path], str]) -> list[list[Path | None]]:
        """Writes everything, then opens the first result.

        Args:
            answers: Each query with its results.
            place: Function that gives the path of a video as it is written.

        Returns:
            For each result of each query the file of its moment, if there is one.

        Raises:
            InputError: A file cannot be written, or nothing opens the first result.
        """
        saved: list[list[Path | None]] = [[None for _ in matches] for _, matches in answers]
        if self.clips:
            saved = self._save(answers)
        if self.sheet:
            from hbi_infer.render.contact_sheet import write_sheet

            self._tell_failed(write_sheet(answers, self.sheet, overwrite=self.overwrite, place=place))
            stdout.note("note", f"contact sheet written to {self.sheet}")
        if self.timeline:
            from hbi_infer.render.timeline import write_timeline

            self._tell_failed(write_timeline(answers, self.timeline, overwrite=self.overwrite))
            stdout.note("note", f"timeline written to {self.timeline}")
        if self.opens:
            _open_first(answers, saved)
        return saved

    def _save(self, answers: Answers) -> list[list[Path | None]]:
        from hbi_infer.render.saved_clips import save_clips

        assert self.clips
        saved = list(map(self._saved, save_clips([matches for _, matches in answers], self.clips)))
        num_copied = sum(clip is not None and clip.is_copy for clip in saved)
        num_encoded = sum(clip is not None and not clip.is_copy for clip in saved)
        counts = f"{num_copied} copied, {num_encoded} encoded anew"
        stdout.note("note", f"{num_copied + num_encoded} moments written to {self.clips}: {counts}")
        files = iter([clip.path if clip else None for clip in saved])
        return [[next(files) for _ in matches] for _, matches in answers]

    def _saved(self, result: "tuple[Match, SavedClip | VideoError]") -> "SavedClip | None":
        match, saved = result
        if isinstance(saved, VideoError):
            self._tell_failed({match.path: saved})
            return None
        return saved

    def _tell_failed(self, failed: Mapping[Path, VideoError]) -> None:
        for path, error in failed.items():
            if path not in self.failed:
                stdout.note("warning", str(error))
                self.failed[path] = error


def _open_first(answers: Answers, saved: Sequence[Sequence[Path | None]]) -> None:
    """Opens the moment of the first result, or else its whole video, and says at which time to look."""
    matches = [match for _, found in answers for match in found]
    files = [file for names in saved for file in names]
    if not matches:
        stdout.note("note", "nothing was found that could be opened")
        return
    match, file = matches[0], files[0]
    try:
        open_in_desktop(file or match.path)
    except OSError as error:
        raise InputError(
            f"cannot open {file or match.path} ({error.strerror}): leave out --open, and open it by hand"
        ) from error
    at = "" if file else f"; the moment is at {stdout.clock(match.start_seconds)}"
    stdout.note("note", f"opened {file or match.path}{at}")
