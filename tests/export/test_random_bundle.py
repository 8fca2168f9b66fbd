"""Models of real size with random weights."""

from __future__ import annotations

import pytest
import torch

from hbi_export.random_bundle import SIZES, random_checkpoint, random_model
from hbi_infer.errors import InputError
from hbi_training.model.config import HBIConfig
from hbi_training.weights.checkpoint import Checkpoint
from tests.builders.tiny_training import MEAN_POOLED_SECTION


def test_the_random_sizes_are_models() -> None:
    for section in SIZES.values():
        config = HBIConfig.from_json({key: value for key, value in section.items() if key != "kind"})
        assert (config.width, len(config.answers), config.caption_layers) == (512, 1500, 4)
    with pytest.raises(InputError, match="choose from: vit-b-32"):
        random_model("vit-l", print)


def test_random_weights_are_the_same_each_time(checkpoint: Checkpoint) -> None:
    again = random_checkpoint(MEAN_POOLED_SECTION, checkpoint.tokenizer_json, "tiny").model.state_dict()
    for name, tensor in (
        random_checkpoint(MEAN_POOLED_SECTION, checkpoint.tokenizer_json, "tiny").model.state_dict().items()
    ):
        assert torch.equal(tensor, again[name])
