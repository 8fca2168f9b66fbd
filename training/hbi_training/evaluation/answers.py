"""Measuring answers: accuracy over all questions and by type, and the temperature that calibrates probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hbi_infer.model.tokenizer import Tokenizer
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import Question, VideoRecord
from hbi_training.model.token_interaction import items
from hbi_training.weights.checkpoint import Model

CLIPS_AT_ONCE = 64


@dataclass(frozen=True)
class Answers:
    """Answers of a model to Q questions.

    Attributes:
        logits: Logits (Q, A) before any temperature.
        labels: Place of the right answer in the closed list, (Q,) int64; -1 if the list lacks it.
        questions: The Q questions.
        rows: Row in the split of each question's clip.
    """

    logits: Tensor
    labels: Tensor
    questions: tuple[Question, ...]
    rows: tuple[int, ...]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest answer is right, (Q,) bool."""
        right: npt.NDArray[np.bool_] = (self.logits.argmax(-1) == self.labels).numpy()
        return right

    def accuracy(self) -> dict[str, float]:
        """Returns the percent of right answers over all questions, by type, and among the first five of each.

        A question whose answer is not in the closed list counts as answered wrongly, as it would for a user.
        """
        right, types = self.right, np.array([question.type for question in self.questions])
        first = self.logits.topk(min(5, self.logits.shape[1])).indices == self.labels[:, None]
        figures = {
            "answer/accuracy": 100 * float(right.mean()),
            "answer/top5": 100 * float(first.any(1).float().mean()),
        }
        figures |= {
            f"answer/accuracy/{kind}": 100 * float(right[types == kind].mean()) for kind in sorted(set(types.tolist()))
        }
        return figures | {"answer/questions": float(len(right))}


def questions_about(records: Sequence[VideoRecord], rows: Sequence[int]) -> list[tuple[int, Question]]:
    """Returns every question about some clips of a split with the row of its clip, in the order of the rows."""
    return [(int(row), question) for row in rows for question in records[row].questions]


def answers_to(asked: Sequence[tuple[int, Question]], logits: Tensor, closed_list: Sequence[str]) -> Answers:
    """Collects the answers to the questions of `questions_about`.

    Args:
        asked: Q questions, each with the row of its clip.
        logits: Logits (Q, A).
        closed_list: The A answers.
    """
    place = {answer: number for number, answer in enumerate(closed_list)}
    rows, questions = zip(*asked, strict=True)
    labels = torch.tensor([place.get(question.answer, -1) for question in questions])
    return Answers(logits, labels, questions, rows)


@torch.inference_mode()
def answer_questions(model: Model, records: Sequence[VideoRecord], cache: FrameCache, tokenizer: Tokenizer) -> Answers:
    """Asks every question of a split.

    Args:
        model: Model with an answer head, on any device.
        records: Clips of the split.
        cache: Frames of the clips.
        tokenizer: Tokenizer of the model.

    Raises:
        TrainingError: The model has no answer head.
    """
    model = model.require("qa", "answering questions")
    assert model.answer_head is not None
    was_training = model.training
    model.eval()
    device = model.logit_scale.device
    logits: list[Tensor] = []
    asked: list[tuple[int, Question]] = []
    rows = np.array([row for row in cache.decoded if records[row].questions])
    for start in range(0, len(rows), CLIPS_AT_ONCE):
        part = rows[start : start + CLIPS_AT_ONCE]
        frames, mask = (torch.from_numpy(array).to(device) for array in cache[part])
        video = model.encode_video(frames, mask)
        pairs = questions_about(records, part.tolist())
        clip_of = torch.tensor([number for number, row in enumerate(part) for _ in records[row].questions])
        batch = tokenizer.encode([question.question for _, question in pairs], model.config.max_words)
        text = model.encode_text(torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device))
        logits.append(model.answer_head.combine(model.answer(text, items(video, clip_of))).float().cpu())
        asked += pairs
    model.train(was_training)
    return answers_to(asked, torch.cat(logits), model.config.answers)


def fit_temperature(answers: Answers) -> float:
    """Finds the temperature that makes the right answers most likely (Guo et al. 2017).

    Golden-section search over its logarithm suffices, for the negative log-likelihood has one minimum.
    """
    known = answers.labels >= 0
    logits, labels = answers.logits[known], answers.labels[known]

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / np.exp(log_temperature), labels))

    low, high = np.log(0.05), np.log(20.0)
    ratio = (5**0.5 - 1) / 2
    inner, outer = high - ratio * (high - low), low + ratio * (high - low)
    for _ in range(40):
        if loss(inner) < loss(outer):
            high, outer = outer, inner
            inner = high - ratio * (high - low)
        else:
            low, inner = inner, outer
            outer = low + ratio * (high - low)
    return float(np.exp((low + high) / 2))


def calibration_error(answers: Answers, temperature: float, num_bins: int = 15) -> float:
    """Computes the expected calibration error in percent: the mean gap of confidence and accuracy over bins."""
    confidence = (answers.logits / temperature).softmax(-1).amax(-1).numpy()
    right = answers.right
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    gaps = [
        abs(right[bins == number].mean() - confidence[bins == number].mean()) * (bins == number).mean()
        for number in np.unique(bins)
    ]
    return 100 * float(sum(gaps))
