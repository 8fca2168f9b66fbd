"""Batches: every clip once a pass, questions beside their clips, shifted frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.batches import TrainingBatches, shift
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import common_answers
from tests.builders.tiny_training import without_captions


def batches_of(split: Split, num_questions: int) -> TrainingBatches:
    corpus = [question.question for record in split.records for question in record.questions]
    return TrainingBatches(
        split.records,
        split.cache,
        Tokenizer.from_json(clip_tokenizer_json(corpus)),
        rows=split.cache.decoded,
        batch_size=8,
        max_words=40,
        seed=0,
        answers=common_answers(split.records, 100),
        num_questions=num_questions,
    )


def test_the_questions_of_a_clip_stand_together(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    batches = batches_of(train, num_questions=3)
    answers = common_answers(train.records, 100)
    batch = batches[0]
    assert batch.question_ids is not None
    assert batch.question_mask is not None
    assert batch.answers is not None
    assert (len(batch.question_ids), len(batch.answers)) == (24, 24)
    for clip in range(8):
        caption = batches.tokenizer.decode(batch.token_ids[clip][batch.token_mask[clip]].tolist())
        record = next(record for record in train.records if caption in record.captions)
        rows = range(3 * clip, 3 * clip + 3)
        asked = {
            (
                batches.tokenizer.decode(batch.question_ids[row][batch.question_mask[row]].tolist()),
                answers[batch.answers[row]],
            )
            for row in rows
        }
        assert len(asked) == 3
        assert asked <= {(question.question, question.answer) for question in record.questions}


def test_a_question_stands_where_there_is_no_caption(splits: tuple[Split, Split]) -> None:
    silent = without_captions(splits[0])
    batches = batches_of(silent, num_questions=1)
    batch = batches[0]
    assert batch.question_ids is not None
    assert torch.equal(batch.token_ids, batch.question_ids)


def test_batches_visit_every_clip_once_a_pass(splits: tuple[Split, Split]) -> None:
    train = splits[0]
    corpus = [caption for record in train.records for caption in record.captions]
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(corpus))
    options: dict[str, Any] = {"batch_size": 8, "max_words": 40, "seed": 0, "num_negatives": 2}
    batches = TrainingBatches(train.records, train.cache, tokenizer, rows=train.cache.decoded, **options)
    assert batches.steps_per_pass == 3
    frames = torch.cat([batches[step].frames for step in range(3)])
    every = train.cache[train.cache.decoded][0]
    assert sorted(clip.tobytes() for clip in frames.numpy()) == sorted(clip.tobytes() for clip in every)
    assert torch.equal(batches[4].token_ids, batches[4].token_ids)
    assert batches[0].negative_ids is not None
    assert len(batches[0].negative_ids) == 16
    # Two ranks share a batch of one.
    half = TrainingBatches(
        train.records, train.cache, tokenizer, rows=train.cache.decoded, rank=1, num_ranks=2, **options
    )
    assert torch.equal(half[2].frames, batches[2].frames[1::2])
    with pytest.raises(TrainingError, match="some clips of the data set have fewer"):
        TrainingBatches(
            train.records, train.cache, tokenizer, rows=train.cache.decoded, **{**options, "num_negatives": 9}
        )


def test_shift_repeats_the_border() -> None:
    frames = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
    moved = shift(frames, 1, -1)
    np.testing.assert_array_equal(moved[:, 1:, :2], frames[:, :2, 1:])
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])
    np.testing.assert_array_equal(moved[:, :, 2], moved[:, :, 1])
