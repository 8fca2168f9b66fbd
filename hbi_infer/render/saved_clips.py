"""Saves found moments as videos, each in a file that its rank, its video and its time name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from hbi_infer.errors import VideoError
from hbi_infer.files import cannot_write, longest_name
from hbi_infer.render.output_names import output_paths
from hbi_infer.video.cutting import ANOTHER_FOLDER, SUFFIXES, SavedClip, save_clip

if TYPE_CHECKING:
    from hbi_infer.tasks.search import Match


def save_clips(
    answers: Sequence[Sequence[Match]], folder: Path | str
) -> Iterator[tuple[Match, SavedClip | VideoError]]:
    """Writes the moments of all answers into a folder, which is made if it is not there, one after the other.

    Args:
        answers: Results of each query.
        folder: The folder.

    Yields:
        Each result with its file, or with why its video could not be cut.

    Raises:
        InputError: A file exists already, or cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, instead=ANOTHER_FOLDER) from error
    matches = [match for answer in answers for match in answer]
    for match, name in zip(matches, clip_names(answers, longest_name(folder)), strict=True):
        try:
            yield match, save_clip(match.path, match.start_seconds, match.end_seconds, folder / name)
        except VideoError as error:
            yield match, error


def clip_names(answers: Sequence[Sequence[Match]], longest: int) -> list[str]:
    """Returns the name of the file of each result without its suffix, such as "01 holiday 12.0-24.0 s".

    Several queries are numbered too: "2-01 holiday 12.0-24.0 s" is the first result of the second.

    Args:
        answers: Results of each query.
        longest: Most bytes of a name, its suffix included.
    """
    longest_suffix = max(SUFFIXES, key=len)
    keys: list[PurePath] = []
    for number, answer in enumerate(answers, start=1):
        query = f"{number}-" if len(answers) > 1 else ""
        for match in answer:
            span = f"{match.start_seconds:.1f}-{match.end_seconds:.1f} s"
            # `output_paths` takes off what it holds for the suffix of a video.
            keys.append(PurePath(f"{query}{match.rank:02} {match.path.stem} {span}{longest_suffix}"))
    named = output_paths(keys, longest_suffix, longest)
    return [named[key].name.removesuffix(longest_suffix) for key in keys]
