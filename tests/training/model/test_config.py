"""Configurations: token counts, JSON, and sizes that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hbi_infer.errors import TrainingError
from hbi_training.model.config import HBIConfig, level_token_counts
from hbi_training.weights.checkpoint import build_model
from tests.builders.tiny_training import HBI_SECTION, with_vocabulary_size


def test_token_counts_of_the_published_setting() -> None:
    assert level_token_counts(32, (0.25, 0.5)) == (32, 8, 4)
    assert level_token_counts(12, (0.25, 0.5)) == (12, 3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_head": 2}, "did you mean 'temporal_heads'?"),
        ({"merge_heads": 5}, "projection_dim 32 is not a multiple of merge_heads 5"),
        ({"level_rates": [1.0]}, "level_rates takes 3 numbers"),
        ({"kind": "hbl"}, "the model's kind is 'hbl'; known kinds: hbi, mean_pooled_clip"),
        ({"clip": "/nowhere/clip"}, "cannot load the CLIP model '/nowhere/clip'"),
    ],
)
def test_a_wrong_configuration_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        build_model({**with_vocabulary_size(HBI_SECTION, 60), **changes})
    assert message in str(caught.value)


def test_a_configuration_survives_json() -> None:
    config = HBIConfig.from_json({key: value for key, value in HBI_SECTION.items() if key != "kind"})
    assert HBIConfig.from_json(config.to_json()) == config
