"""Videos with their captions and questions, the common form of all data sets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hbi_infer.errors import DataError
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.sampling import Stretch
from hbi_training.data.annotation_files import check_unicode, shown

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """A question about a video.

    Attributes:
        question: Text as published.
        answer: Answer from the data set's closed list.
        type: Type of the question, such as colour, count, what or who.
    """

    question: str
    answer: str
    type: str


class Phrase(NamedTuple):
    """Words of a caption whose moment in the video is known.

    Attributes:
        caption: The caption.
        start: Place of the phrase's first character in the caption.
        text: The phrase.
        kind: Kind of phrase, such as noun or verb; measured apart.
        start_seconds: Begin of the moment, as a player shows it.
        end_seconds: End of the moment.
    """

    caption: str
    start: int
    text: str
    kind: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class VideoRecord:
    """A video, or a part of it, with the texts that describe it.

    Attributes:
        video: Path of the file.
        captions: Texts as published, before any cleaning, none blank; at least one, unless there are questions.
        end_seconds: End of the part that is meant; None for the end of the video.
        hard_negatives: Texts that are nearly but not quite true of the clip.
        questions: Questions with their answers.
        start_seconds: Start of the part that is meant. Both times count as a player shows them.
        phrases: Phrases of the captions with their moments.
    """

    video: Path
    captions: tuple[str, ...]
    end_seconds: float | None = None
    hard_negatives: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    start_seconds: float = 0.0
    phrases: tuple[Phrase, ...] = ()

    @property
    def stretch(self) -> Stretch:
        """Part of the video that is meant."""
        return Stretch(self.start_seconds, self.end_seconds)

    @property
    def name(self) -> str:
        """Path of the file, with the part that is meant where it does not begin with the video."""
        end = "" if self.end_seconds is None else f" to {self.end_seconds:g} s"
        return f"{self.video} from {self.start_seconds:g} s{end}" if self.start_seconds else str(self.video)


@dataclass(frozen=True)
class Annotation:
    """Entry of an annotation file, before its video is found.

    Attributes:
        where: File and line or entry, for messages.
        names: Possible file names of the video, with or without suffix, the likeliest first.
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
    """Returns a video's name if it is a file name and no path.

    Raises:
        DataError: The name could lead out of the folder of videos.
    """
    if name.strip() in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise DataError(f"{where}: {name!r:.80} is not the name of a video; no name may hold a path")
    return name


def checked_texts(texts: Iterable[Any], where: str) -> tuple[str, ...]:
    """Strips captions and drops blank ones.

    Raises:
        DataError: A caption is not a text, or all are blank.
    """
    kept = []
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: a caption is {shown(text)}; it must be a text")
        check_unicode(text, where)
        if text.strip():
            kept.append(text.strip())
    if not kept:
        raise DataError(f"{where}: all captions are blank, or there are none")
    return tuple(kept)


def is_file(path: Path | str) -> bool:
    """Returns whether a file exists; False also for impossible names, for example one too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def find_records(annotations: Sequence[Annotation], videos: Path | str, source: str) -> list[VideoRecord]:
    """Joins annotations with the video files anywhere below a folder, matched by name with or without suffix.

    Args:
        annotations: Annotations in the order that the records will have.
        videos: Folder to search.
        source: Name of the data set and split, for messages.

    Raises:
        DataError: Two files have the same name, or all videos are missing.
    """
    videos = Path(videos)
    if not videos.is_dir():
        raise DataError(f"{source}: there is no folder {videos} to look for its videos in")
    files: dict[str, list[Path]] = {}
    for path in find_videos(videos):
        for name in {path.name, path.stem}:
            files.setdefault(name, []).append(path)
    found: list[tuple[str, VideoRecord | None]] = []
    for annotation in annotations:
        paths = next((files[name] for name in annotation.names if name in files), [])
        if len({file_identity(path) for path in paths}) > 1:
            raise DataError(
                f"{annotation.where}: both {paths[0]} and {paths[1]} have its name; "
                "keep one, or name the folder of videos to use"
            )
        record = None
        if paths:
            questions = annotation.questions
            record = VideoRecord(paths[0], annotation.captions, annotation.end_seconds, questions=questions)
        found.append((annotation.names[0], record))
    return without_missing(found, videos, source)


def without_missing(
    found: Sequence[tuple[str, VideoRecord | None]], videos: Path | str, source: str
) -> list[VideoRecord]:
    """Returns the records whose video exists, one for each clip, and logs one warning about the others.

    Args:
        found: Name of each video with its record; None if the file is missing.
        videos: Folder that was searched, for messages.
        source: Name of the data set and split, for messages.

    Raises:
        DataError: All videos are missing, or the annotations name none.
    """
    if not found:
        raise DataError(f"{source}: the annotations name no videos")
    records = [record for _, record in found if record is not None]
    missing = list(dict.fromkeys(name for name, record in found if record is None))
    if not records:
        raise DataError(
            f"{source}: none of its {len(missing)} videos is in {videos}, for example {missing[0]:.80}; "
            "say where the videos are"
        )
    if missing:
        logger.warning(
            "%s: %d of %d videos are not in %s and are left out, for example %s",
            source,
            len(missing),
            len(missing) + len({file_identity(record.video) for record in records}),
            videos,
            missing[0][:80],
        )
    return merged(records)


def merged(records: Iterable[VideoRecord]) -> list[VideoRecord]:
    """Joins the records of each clip to one that has the texts of all, in their order; what they repeat stands once.

    Records are of one clip if they name the same file, however they spell it, and the same part of it.
    """
    clips: dict[tuple[Hashable, Stretch], list[VideoRecord]] = {}
    for record in records:
        clips.setdefault((file_identity(record.video), record.stretch), []).append(record)
    return [parts[0] if len(parts) == 1 else _joined(parts) for parts in clips.values()]


def _joined(parts: Sequence[VideoRecord]) -> VideoRecord:
    """Returns the first record with the texts of all."""
    return replace(
        parts[0],
        captions=tuple(dict.fromkeys(caption for part in parts for caption in part.captions)),
        hard_negatives=tuple(dict.fromkeys(negative for part in parts for negative in part.hard_negatives)),
        questions=tuple(dict.fromkeys(question for part in parts for question in part.questions)),
        phrases=tuple(dict.fromkeys(phrase for part in parts for phrase in part.phrases)),
    )


def file_identity(path: Path | str) -> Hashable:
    """Returns a value that is equal for all names of one file: links, and other cases where the system ignores case."""
    status = Path(path).stat()
    # Some file systems number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else Path(path).resolve()
