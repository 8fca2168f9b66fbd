"""Captions of a split."""

from __future__ import annotations

import torch

from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import Decoding
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation.caption_writing import caption_split
from hbi_training.model.hbi import HBI
from hbi_training.weights.checkpoint import build_model
from tests.builders.tiny_training import ALL_TASKS


def test_captions_of_a_split_are_those_of_its_clips_alone(splits: tuple[Split, Split]) -> None:
    _, validation = splits
    corpus = [caption for record in validation.records for caption in record.captions]
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(corpus))
    torch.manual_seed(0)
    model = build_model(ALL_TASKS, tokenizer)
    assert isinstance(model, HBI)
    assert model.caption_decoder is not None
    torch.nn.init.normal_(model.caption_decoder.word.weight)  # so that it is sure of what it says
    for options in (Decoding(max_tokens=6, beam_size=1), Decoding(max_tokens=6, beam_size=3)):
        together = caption_split(model, validation.cache, [0, 1, 2], tokenizer, options)
        alone = [caption_split(model, validation.cache, [row], tokenizer, options)[0] for row in range(3)]
        assert together == alone
        assert all(together)
    assert model.training
