"""Batches of clips and captions, each a pure function of seed and step, so that a run resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import Question, VideoRecord


@dataclass(frozen=True)
class Batch:
    """B matched pairs, with K hard negatives and Q questions per clip.

    Attributes:
        frames: Frames (B, F, H, W, 3) uint8.
        frame_mask: True at real frames, (B, F) bool.
        token_ids: Ids of the captions, (B, T) int64.
        token_mask: True at real tokens, (B, T) bool.
        negative_ids: Ids of the hard negatives, grouped by clip, (B * K, T') int64; None for none.
        negative_mask: True at their real tokens, (B * K, T') bool; None for none.
        question_ids: Ids of the questions, grouped by clip, (B * Q, T") int64; None for none.
        question_mask: True at their real tokens, (B * Q, T") bool; None for none.
        clips: Place of each clip among the records, (B,) int64; None if unknown.
        answers: Place of each answer in the closed list, (B * Q,) int64, -1 where there is no question; None for none.
    """

    frames: Tensor
    frame_mask: Tensor
    token_ids: Tensor
    token_mask: Tensor
    negative_ids: Tensor | None = None
    negative_mask: Tensor | None = None
    question_ids: Tensor | None = None
    question_mask: Tensor | None = None
    answers: Tensor | None = None
    clips: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Copies the batch to another device."""
        parts: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in vars(self).items()}
        return Batch(**parts)


class TrainingBatches:
    """Endless random batches, in which every pass visits each clip once with one of its captions.

    A clip without captions is compared with a question about it, as in the released code.

    Args:
        records: Clips to visit.
        cache: Frames of the clips, and perhaps of others.
        tokenizer: Tokenizer of the model.
        rows: Row of each record in the cache, (N,) int64.
        batch_size: Pairs of a batch, over all ranks together.
        max_words: Greatest number of tokens in a text.
        seed: Random seed of the order, the captions and the shifts.
        num_negatives: Number K of hard negatives per clip.
        shift_pixels: Greatest shift of a clip in pixels.
        answers: Closed list of answers; if empty, no questions are asked. Questions with other answers are left out.
        num_questions: Number Q of questions per clip; those of a clip that has fewer repeat.
        rank: Rank of this device.
        num_ranks: Number of devices.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        cache: FrameCache,
        tokenizer: Tokenizer,
        *,
        rows: npt.NDArray[np.intp],
        batch_size: int,
        max_words: int,
        seed: int,
        num_negatives: int = 0,
        shift_pixels: int = 0,
        answers: Sequence[str] = (),
        num_questions: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if num_negatives and any(len(record.hard_negatives) < num_negatives for record in records):
            raise TrainingError(
                f"the objective's hard_negatives is {num_negatives}, and some clips of the data set have fewer; add "
                "more to its manifest, or --set objective.hard_negatives=0"
            )
        if batch_size % num_ranks:
            raise TrainingError(f"batch_size is {batch_size}, which {num_ranks} devices cannot share evenly")
        self.records, self.cache, self.tokenizer, self.rows = records, cache, tokenizer, rows
        self.batch_size = min(batch_size, len(records) // num_ranks * num_ranks)
        self.max_words, self.seed = max_words, seed
        self.num_negatives, self.shift_pixels = num_negatives, shift_pixels
        self.rank, self.num_ranks = rank, num_ranks
        self.num_questions = num_questions
        self.place_of_answer = {answer: place for place, answer in enumerate(answers)}

    @property
    def steps_per_pass(self) -> int:
        """Number of batches in a pass; clips that do not fill a batch wait for the next pass."""
        return len(self.records) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        """Returns this rank's part of a step's batch: (B / ranks, F, H, W, 3) frames and so on."""
        number_of_pass, place = divmod(step, self.steps_per_pass)
        order = np.random.default_rng([self.seed, number_of_pass, 0]).permutation(len(self.records))
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, step, 1])
        captions = [self._pick(self.records[i].captions, 1, rng) for i in chosen]
        negatives = [self._pick(self.records[i].hard_negatives, self.num_negatives, rng) for i in chosen]
        shifts = rng.integers(-self.shift_pixels, self.shift_pixels + 1, (len(chosen), 2))
        asked = [self._ask(self.records[i].questions, rng) for i in chosen]
        texts = [
            caption[0] if caption else (questions[0] or self.records[i].questions[0]).question
            for i, caption, questions in zip(chosen, captions, asked, strict=True)
        ]

        mine = slice(self.rank, None, self.num_ranks)
        frames, mask = self.cache[self.rows[chosen[mine]]]
        frames = np.stack([shift(clip, *by) for clip, by in zip(frames, shifts[mine], strict=True)])
        token_ids, token_mask = self._tokens(texts[mine])
        negative_ids, negative_mask = None, None
        if self.num_negatives:
            negative_ids, negative_mask = self._tokens([text for group in negatives[mine] for text in group])
        question_ids, question_mask, answers = None, None, None
        if self.place_of_answer:
            flat = [question for questions in asked[mine] for question in questions]
            question_ids, question_mask = self._tokens([q.question if q else "" for q in flat])
            answers = torch.tensor([self.place_of_answer[q.answer] if q else -1 for q in flat])
        return Batch(
            frames=torch.from_numpy(frames),
            frame_mask=torch.from_numpy(mask),
            token_ids=token_ids,
            token_mask=token_mask,
            negative_ids=negative_ids,
            negative_mask=negative_mask,
            question_ids=question_ids,
            question_mask=question_mask,
            answers=answers,
            clips=torch.from_numpy(chosen[mine]),
        )

    def _ask(self, questions: Sequence[Question], rng: np.random.Generator) -> list[Question | None]:
        """Draws Q of the questions whose answer is in the closed list."""
        known = [question for question in questions if question.answer in self.place_of_answer]
        order = rng.permutation(len(known))
        return [known[order[i % len(order)]] if known else None for i in range(self.num_questions)]

    def _pick(self, captions: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
        return [captions[i] for i in rng.permutation(len(captions))[:num]] if num else []

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        batch = self.tokenizer.encode(texts, self.max_words)
        return torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)


def shift(frames: npt.NDArray[np.uint8], down: int, right: int) -> npt.NDArray[np.uint8]:
    """Moves frames (F, H, W, 3) by whole pixels, and repeats their border into the gap."""
    if not down and not right:
        return frames
    height, width = frames.shape[1:3]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]
