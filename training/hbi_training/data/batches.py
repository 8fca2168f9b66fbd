"""Batches of clips and captions, each a pure function of the seed and the step, so that a run resumes exactly."""

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
    """B matched pairs, and K hard negatives of each clip.

    Attributes:
        frames: (B, F, H, W, 3) uint8.
        frame_mask: (B, F) bool.
        token_ids: (B, T) int64.
        token_mask: (B, T) bool.
        negative_ids: (B * K, T') int64, or None; those of one clip stand together.
        negative_mask: (B * K, T') bool, or None.
        question_ids: (B * Q, T") int64, or None; the Q questions about one clip stand together.
        question_mask: (B * Q, T") bool, or None.
        clips: (B,) int64, which clips they are, by their places among the records; or None.
        answers: (B * Q,) int64, each answer's place in the closed list, or None; -1 where there is no question.
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
        """The same batch on another device."""
        parts: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in vars(self).items()}
        return Batch(**parts)


class TrainingBatches:
    """Random batches without end: every pass visits each clip once, with one of its captions.

    A clip without captions is compared with the question that it is asked, as in the released code.

    Args:
        records: The clips.
        cache: Their frames, and perhaps those of others.
        tokenizer: The model's.
        rows: (N,) where in the cache the frames of each record are.
        batch_size: Pairs of a batch, over all ranks together.
        max_words: The most tokens of a caption.
        seed: Of the order, the captions and the shifts.
        num_negatives: K hard negatives of each clip.
        shift_pixels: Clips are moved by up to this many pixels.
        answers: The closed list of answers; without it no questions are asked. Questions with another answer are left
            out.
        num_questions: Q, asked about each clip; one that has fewer is asked some of them again.
        rank: Of this device.
        num_ranks: Devices in all.
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
                f"the objective's hard_negatives is {num_negatives}, and some clips of the data set have fewer; put as "
                "many into its manifest, or --set objective.hard_negatives=0"
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
        """Batches that visit each clip once; what is left over waits for the next pass."""
        return len(self.records) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        """The part of this rank of the batch of a step."""
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
        """Q of the questions whose answer is in the closed list."""
        known = [question for question in questions if question.answer in self.place_of_answer]
        order = rng.permutation(len(known))
        return [known[order[i % len(order)]] if known else None for i in range(self.num_questions)]

    def _pick(self, captions: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
        return [captions[i] for i in rng.permutation(len(captions))[:num]] if num else []

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        batch = self.tokenizer.encode(texts, self.max_words)
        return torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)


def shift(frames: npt.NDArray[np.uint8], down: int, right: int) -> npt.NDArray[np.uint8]:
    """Moves a picture (F, H, W, 3) by whole pixels; its border is repeated into the gap."""
    if not down and not right:
        return frames
    height, width = frames.shape[1:3]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]
