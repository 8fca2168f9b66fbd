"""Answering questions about videos: for each clip the probability of every answer that the bundle knows.

The probabilities are calibrated, so that of the answers with a probability of 0.7 seven in ten are right. Below
`Answering.min_probability` the answer is "don't know".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.index.clip_tokens import ClipBatch, ClipPlace, Clips, clips_of_video
from hbi_infer.model.encoder import Encoder
from hbi_infer.options import Answering
from hbi_infer.tasks.search import encode_texts
from hbi_infer.tokens.levels import some
from hbi_infer.tokens.similarity import top

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index

PAIRS_AT_ONCE = 128
"""Pairs of a question and a clip that go through the graph together."""

CLIPS_AT_ONCE = 1024
"""Clips whose tokens are in memory together."""

# fmt: off
QUESTION_MARKS = ("?", "\uff1f", "\u061f")
QUESTION_WORDS = frozenset({
    "what", "which", "who", "whose", "whom", "where", "when", "why", "how", "is", "are", "was", "were", "am", "do",
    "does", "did", "has", "have", "had", "can", "could", "will", "would", "shall", "should", "may", "might", "must",
})
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of the bundle's answers.

    Attributes:
        text: The answer.
        probability: That it is right.
    """

    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a question about a video, or about one of its clips.

    Attributes:
        question: As given.
        path: Of the video.
        clip: Which of its clips the answer is from, counted from 1.
        start_seconds: Where in the video that clip begins.
        end_seconds: Where it ends.
        text: The answer; None for "don't know".
        probability: Of the likeliest answer, whether it is given or not.
        choices: The likeliest answers, best first; of equal ones the first in the bundle's list.
    """

    question: str
    path: Path
    clip: int
    start_seconds: float
    end_seconds: float
    text: str | None
    probability: float
    choices: tuple[Choice, ...]

    @property
    def is_confident(self) -> bool:
        """Whether the answer is given: False for "don't know"."""
        return self.text is not None

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path), "choices": [asdict(choice) for choice in self.choices]}


def answer_clips(
    encoder: Encoder, questions: Sequence[str], clips: Clips, options: Answering | None = None
) -> list[list[Answer]]:
    """Answers about any clips.

    Args:
        encoder: The model.
        questions: Sentences; see `check_questions`.
        clips: Of one video or of many.
        options: How many answers to name, when to say "don't know", and whether each clip has an answer.

    Returns:
        For each question the answers, one for each video, or for each clip, in order of path and time.

    Raises:
        BundleError: The bundle cannot answer questions.
        InputError: A question is empty or none.
        IndexStoreError: What the index holds of a clip is damaged.

    Warns:
        QueryTruncatedWarning: A question is too long.
    """
    encoder.bundle.require("qa")
    check_questions(questions)
    options = options or Answering()
    if not questions:
        return []
    found: list[dict[tuple[Path, int], Answer]] = [{} for _ in questions]
    for number, place, probabilities in _probabilities(encoder, questions, clips):
        # One answer for each key; the first of equally probable ones stays.
        key = place.path, place.clip if options.all_clips else 0
        best = found[number].get(key)
        if best is None or probabilities.max() > best.probability:
            found[number][key] = _answer(
                questions[number], place, probabilities, encoder.bundle.manifest.answers, options
            )
    return [list(answers.values()) for answers in found]


def answer_video(
    encoder: Encoder, video: Path, question: str, options: Answering | None = None, *, index: Index | None = None
) -> list[Answer]:
    """Answers about one video: one, or one for each clip if the options ask for that.

    Args:
        encoder: The model.
        video: Any video. If the index holds it as it is now, or it is gone, nothing is decoded.
        question: A sentence.
        options: See `Answering`.
        index: Where to look for the video's tokens first.

    Raises:
        BundleError: The bundle cannot answer questions.
        InputError: The question is empty or none, or there is no such video.
        VideoError: The video is not in the index and cannot be decoded.
        IndexStoreError: What the index holds of the video is damaged.

    Warns:
        QueryTruncatedWarning: The question is too long.
        IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
    """
    encoder.bundle.require("qa")
    check_questions([question])  # before anything is decoded
    return answer_clips(encoder, [question], clips_of_video(encoder, video, index), options)[0]


def check_questions(questions: Sequence[str]) -> None:
    """Refuse what is no question: it has no question mark, and does not begin with a question word.

    Raises:
        InputError: One is empty or no question; says what to write.
    """
    example = "such as 'what colour is the circle?'"
    for question in questions:
        if not question.strip():
            raise InputError(f"a question is empty: write one, {example}")
        first = re.search(r"[^\W\d_]+", question)
        if not any(mark in question for mark in QUESTION_MARKS) and (
            first is None or first[0].lower() not in QUESTION_WORDS
        ):
            raise InputError(
                f"{question!r} is not a question: write one that ends in a question mark or begins with a word such as "
                f"what, who or how, {example}. To find what a sentence describes, use hbi-infer retrieve"
            )


def _probabilities(
    encoder: Encoder, questions: Sequence[str], clips: Clips
) -> Iterator[tuple[int, ClipPlace, npt.NDArray[np.float64]]]:
    """For each question, by number, and each clip: the probabilities (A,) of all answers."""
    text = encode_texts(encoder, questions, "question")
    for batch in clips.batches(CLIPS_AT_ONCE):
        for numbers, rows in _pairs(len(questions), batch):
            logits = encoder.answer_logits(some(text, numbers), some(batch.levels, rows)).astype(np.float64)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            yield from zip(numbers.tolist(), (batch.places[row] for row in rows), shares, strict=True)


def _pairs(num_questions: int, batch: ClipBatch) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Numbers of questions and rows of clips, every question with every clip, in blocks."""
    num_clips = len(batch.places)
    for start in range(0, num_questions * num_clips, PAIRS_AT_ONCE):
        pairs = np.arange(start, min(start + PAIRS_AT_ONCE, num_questions * num_clips))
        yield pairs // num_clips, pairs % num_clips


def _answer(
    question: str,
    place: ClipPlace,
    probabilities: npt.NDArray[np.float64],
    answers: Sequence[str],
    options: Answering,
) -> Answer:
    best = top(probabilities, options.top_k)
    choices = tuple(Choice(text=answers[number], probability=float(probabilities[number])) for number in best)
    is_known = choices[0].probability >= options.min_probability
    return Answer(
        question=question,
        path=place.path,
        clip=place.clip,
        start_seconds=place.start_seconds,
        end_seconds=place.end_seconds,
        text=choices[0].text if is_known else None,
        probability=choices[0].probability,
        choices=choices,
    )
