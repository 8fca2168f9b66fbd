"""A video with its captions and questions, whatever data set it comes from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hbi_infer.errors import DataError
from hbi_infer.video.discovery import find_videos

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """A question about a video.

    Attributes:
        question: As published.
        answer: One of the data set's closed list of answers.
        type: What is asked for: colour, count, what, who...
    """

    question: str
    answer: str
    type: str


@dataclass(frozen=True)
class VideoRecord:
    """One video, or the beginning of it, with the texts that describe it.

    Attributes:
        video: The file.
        captions: None of them blank; as published, before any cleaning. At least one, unless there are questions.
        end_seconds: Only the video up to here is meant; None is all of it.
        hard_negatives: Texts that are nearly but not quite true of the clip.
        questions: With their answers.
    """

    video: Path
    captions: tuple[str, ...]
    end_seconds: float | None = None
    hard_negatives: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says of a video that is yet to be found.

    Attributes:
        where: The file and the line or entry, for messages.
        names: File names that the video may have, with or without suffix, the likeliest first.
        captions: See `VideoRecord`.
        end_seconds: See `VideoRecord`.
        questions: See `VideoRecord`.
    """

    where: str
    names: tuple[str, ...]
    captions: tuple[str, ...]
    end_seconds: float | None = None
    questions: tuple[Question, ...] = ()


def common_answers(records: Sequence[VideoRecord], most: int) -> tuple[str, ...]:
    """Returns the most frequent answers to the records' questions, equally frequent ones in alphabetical order."""
    counts = Counter(question.answer for record in records for question in record.questions)
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:most])


def checked_name(name: str, where: str) -> str:
    """A video's name, which must be a file name and no path.

    Raises:
        DataError: It could lead out of the folder of videos.
    """
    if name.strip() in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise DataError(f"{where}: {name!r:.80} is not the name of a video; no name may hold a path")
    return name


def checked_texts(texts: Iterable[Any], where: str) -> tuple[str, ...]:
    """Captions without the blank ones.

    Raises:
        DataError: One is not a text, or all are blank.
    """
    kept = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: a caption is {text!r:.60}; it must be a text")
        if text.strip():
            kept.append(text.strip())
    if not kept:
        raise DataError(f"{where}: no caption that is not blank")
    return tuple(kept)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, for example one too long, is no error."""
    try:
        return path.is_file()
    except OSError:
        return False


def find_records(annotations: Sequence[Annotation], videos: Path, source: str) -> list[VideoRecord]:
    """Join annotations with the video files anywhere below a folder, matched by name with or without suffix.

    Args:
        annotations: In the order that the records will have.
        videos: The folder to look through.
        source: The data set and split, for messages.

    Raises:
        DataError: Two files have the same name, or all videos are missing.
    """
    if not videos.is_dir():
        raise DataError(f"{source}: there is no folder {videos} to look for its videos in")
    files: dict[str, list[Path]] = {}
    for path in find_videos(videos):
        for name in {path.name, path.stem}:
            files.setdefault(name, []).append(path)
    found: list[tuple[str, VideoRecord | None]] = []
    for annotation in annotations:
        paths = next((files[name] for name in annotation.names if name in files), [])
        if len(paths) > 1:
            raise DataError(
                f"{annotation.where}: both {paths[0]} and {paths[1]} could be meant; "
                "keep one, or name the folder of videos to use"
            )
        record = None
        if paths:
            questions = annotation.questions
            record = VideoRecord(paths[0], annotation.captions, annotation.end_seconds, questions=questions)
        found.append((annotation.names[0], record))
    return without_missing(found, videos, source)


def without_missing(found: Sequence[tuple[str, VideoRecord | None]], videos: Path, source: str) -> list[VideoRecord]:
    """The records whose video is there; the others are reported once.

    Args:
        found: Each video's name with its record, None if there is no such file.
        videos: The folder that was looked through, for messages.
        source: The data set and split, for messages.

    Raises:
        DataError: All are missing, or there were none to begin with.
    """
    if not found:
        raise DataError(f"{source}: the annotations name no videos")
    records = [record for _, record in found if record is not None]
    missing = [name for name, record in found if record is None]
    if not records:
        raise DataError(
            f"{source}: none of its {len(found)} videos is in {videos}, for example {missing[0]:.80}; "
            "say where the videos are"
        )
    if missing:
        logger.warning(
            "%s: %d of %d videos are not in %s and are left out, for example %s",
            source,
            len(missing),
            len(found),
            videos,
            missing[0][:80],
        )
    return records
