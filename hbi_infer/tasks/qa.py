"""Answering questions about videos: for each clip the probability of every answer that the bundle knows.

The probabilities are calibrated: seven in ten answers with a probability of 0.7 are right. Below
`Answering.min_probability` the answer is "don't know".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.index.clip_tokens import ClipBatch, ClipPlace, Clips
from hbi_infer.model.encoder import Encoder
from hbi_infer.model.familiarity import familiarity_of
from hbi_infer.options import Answering
from hbi_infer.tasks.texts import EncodedTexts, encode_texts
from hbi_infer.tokens.familiarity import unfamiliar
from hbi_infer.tokens.levels import some
from hbi_infer.tokens.similarity import top

PAIRS_AT_ONCE = 128
"""Number of question-clip pairs that go through the graph together."""

CLIPS_AT_ONCE = 1024
"""Number of clips whose tokens are in memory together."""

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
        probability: Probability that it is right.
    """

    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a question about a video, or about one of its clips.

    Attributes:
        question: The question as given.
        path: Path of the video.
        clip: Number of the clip that the answer is from, counted from 1.
        start_seconds: Time in the video at which that clip begins.
        end_seconds: Time at which it ends.
        text: The answer; None for "don't know".
        probability: Probability of the likeliest answer, whether it is given or not.
        choices: The likeliest answers, best first; of equal ones the first in the bundle's list.
        unfamiliar: Whether the clip is unlike all that the model was trained on, so that the answer is not to be relied
            on; see `hbi_infer.tokens.familiarity`. False if the bundle does not know.
    """

    question: str
    path: Path
    clip: int
    start_seconds: float
    end_seconds: float
    text: str | None
    probability: float
    choices: tuple[Choice, ...]
    unfamiliar: bool = False

    @property
    def is_confident(self) -> bool:
        """Whether the answer is given: False for "don't know"."""
        return self.text is not None

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path), "choices": [asdict(choice) for choice in self.choices]}


def answer_clips(
    encoder: Encoder, questions: EncodedTexts, clips: Clips, options: Answering | None = None
) -> list[list[Answer]]:
    """Answers B questions about N clips.

    Args:
        encoder: The model.
        questions: B questions; see `encode_questions`.
        clips: N clips of one video or of many.
        options: How many answers to name, when to say "don't know", and whether each clip gets an answer.

    Returns:
        For each question the answers, one for each video, or for each clip, in order of path and time.

    Raises:
        BundleError: The bundle cannot answer questions.
        IndexStoreError: The index is damaged where it holds a clip.
    """
    encoder.bundle.require("qa")
    options = options or Answering()
    found: list[dict[tuple[Path, int], Answer]] = [{} for _ in questions.texts]
    for number, clip, probabilities in _probabilities(encoder, questions, clips):
        place = clip.place
        # One answer for each key; the first of equally probable ones stays.
        key = place.path, place.clip if options.all_clips else 0
        best = found[number].get(key)
        if best is None or probabilities.max() > best.probability:
            found[number][key] = _answer(
                questions.texts[number], clip, probabilities, encoder.bundle.manifest.answers, options
            )
    return [list(answers.values()) for answers in found]


def encode_questions(encoder: Encoder, questions: Sequence[str]) -> EncodedTexts:
    """Checks, tokenizes and encodes B questions.

    Raises:
        BundleError: The bundle cannot answer questions.
        InputError: There is no question, or one is empty or no question.

    Warns:
        QueryTruncatedWarning: A question is too long.
    """
    encoder.bundle.require("qa")
    check_questions(questions)
    return encode_texts(encoder, questions, "question")


def check_questions(questions: Sequence[str]) -> None:
    """Refuses texts that have no question mark and do not begin with a question word.

    Raises:
        InputError: A text is empty or no question.
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


class _Clip(NamedTuple):
    """A clip that is asked about: its place, and whether it is unlike all that the model was trained on."""

    place: ClipPlace
    unfamiliar: bool


def _probabilities(
    encoder: Encoder, questions: EncodedTexts, clips: Clips
) -> Iterator[tuple[int, _Clip, npt.NDArray[np.float64]]]:
    """Computes the probabilities (A,) of all answers for each question, by number, and each clip."""
    familiarity = familiarity_of(encoder.bundle)
    for batch in clips.batches(CLIPS_AT_ONCE):
        strange = unfamiliar(familiarity, batch.levels)
        asked = list(map(_Clip, batch.places, strange.tolist()))
        for numbers, rows in _pairs(len(questions), batch):
            logits = encoder.answer_logits(some(questions.levels, numbers), some(batch.levels, rows)).astype(np.float64)
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            yield from zip(numbers.tolist(), (asked[row] for row in rows), shares, strict=True)


def _pairs(num_questions: int, batch: ClipBatch) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pairs every question with every clip: numbers of questions and rows of clips, in blocks."""
    num_clips = len(batch.places)
    for start in range(0, num_questions * num_clips, PAIRS_AT_ONCE):
        pairs = np.arange(start, min(start + PAIRS_AT_ONCE, num_questions * num_clips))
        yield pairs // num_clips, pairs % num_clips


def _answer(
    question: str,
    clip: _Clip,
    probabilities: npt.NDArray[np.float64],
    answers: Sequence[str],
    options: Answering,
) -> Answer:
    best = top(probabilities, options.top_k)
    choices = tuple(Choice(text=answers[number], probability=float(probabilities[number])) for number in best)
    place = clip.place
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
        unfamiliar=clip.unfamiliar,
    )
