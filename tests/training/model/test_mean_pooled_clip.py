"""The baseline: mean of unit frames, and constants that are no options."""

from __future__ import annotations

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.model.mean_pooled_clip import MeanPooledConfig
from hbi_training.weights.checkpoint import build_model
from tests.builders.tiny_training import MEAN_POOLED_SECTION, with_vocabulary_size


def test_the_baseline_is_the_mean_of_unit_frames() -> None:
    torch.manual_seed(0)
    baseline = build_model(with_vocabulary_size(MEAN_POOLED_SECTION, 60)).eval()
    frames = torch.randint(0, 256, (2, 6, 32, 32, 3), dtype=torch.uint8)
    mask = torch.arange(6)[None] < torch.tensor([[6], [2]])
    ids = torch.tensor([[58, 4, 5, 59, 0, 0], [58, 7, 8, 9, 10, 59]])
    text_mask = torch.arange(6)[None] < torch.tensor([[4], [6]])
    with torch.no_grad():
        text, video = baseline.encode_text(ids, text_mask), baseline.encode_video(frames, mask)
        score = baseline.score(baseline.similarity(text, video))
        features = baseline.frame_encoder(baseline.frame_encoder.normalise(frames.flatten(0, 1))).unflatten(0, (2, 6))
        hidden = baseline.word_encoder(ids, text_mask)
    ends = torch.stack([hidden[0, 3], hidden[1, 5]])
    means = torch.stack([torch.nn.functional.normalize(features[i, :n], dim=-1).mean(0) for i, n in enumerate((6, 2))])
    expected = torch.nn.functional.normalize(ends, dim=-1) @ torch.nn.functional.normalize(means, dim=-1).T
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-5)


def test_constants_of_a_mean_pooled_clip_are_no_options() -> None:
    section = {name: value for name, value in MEAN_POOLED_SECTION.items() if name != "kind"}
    config = MeanPooledConfig.from_json(section)
    assert (config.merging, config.padded_partner, config.answers) == ("masked", "ignore", ())
    assert not {"merging", "padded_partner", "answers"} & config.to_json().keys()
    with pytest.raises(TrainingError, match="unknown key 'merging'"):
        MeanPooledConfig.from_json({**section, "merging": "masked"})
