"""The class token by itself against all of the layers, and the merging of patches against sums by hand."""

from __future__ import annotations

import pytest
import torch

from hbi_training.model.clip_encoders import FrameEncoder, build_clip
from hbi_training.model.vision_transformer import Patches, class_token, merge_patches
from tests.builders.tiny_training import CLIP


@pytest.fixture
def encoder() -> FrameEncoder:
    torch.manual_seed(0)
    deep = {**CLIP, "vision_config": {**CLIP["vision_config"], "num_hidden_layers": 3, "image_size": 64}}
    return FrameEncoder(build_clip(deep)).eval()


def test_the_class_token_is_that_of_all_layers_computed_in_full(encoder: FrameEncoder) -> None:
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(encoder(pixels), encoder.see(pixels).features, atol=1e-6)


def test_equal_patches_merge_without_any_loss(encoder: FrameEncoder) -> None:
    """Attention counts a merged patch as often as it was there, so that nothing tells it from its parts."""
    torch.manual_seed(1)
    layers = encoder.vision.encoder.layers[:2]  # only the first merges
    own, repeated = torch.randn(2, 1, 32), torch.randn(2, 4, 32)
    hidden = torch.cat([own, repeated.repeat_interleave(2, dim=1)], dim=1)
    with torch.no_grad():
        whole, merged = class_token(layers, hidden), class_token(layers, hidden, merged=2)
    assert torch.allclose(whole, merged, atol=1e-5)


def test_the_nearest_pair_becomes_its_mean_by_size() -> None:
    hidden = torch.tensor([[[9.0], [1.0], [4.0], [5.0], [7.0]]])
    # The first patch is nearest to the second one; the third one to the fourth, and less so.
    keys = torch.tensor([[[5.0, 5.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.5, 1.0]]])
    once = merge_patches(Patches(hidden, None), keys, 1)
    assert once.hidden[0, :, 0].tolist() == [9, 5, 2.5, 7]
    assert once.sizes is not None
    assert once.sizes[0, :, 0].tolist() == [1, 1, 2, 1]
    again = merge_patches(once, torch.tensor([[[0.0, 1.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]]), 1)
    assert again.hidden[0, :, 0].tolist() == pytest.approx([9, 7, (5 + 2 * 2.5) / 3])
    assert again.sizes is not None
    assert again.sizes[0, :, 0].tolist() == [1, 1, 3]


@pytest.mark.parametrize("patches", [1, 2, 5, 8])
def test_no_more_than_half_of_the_patches_are_merged(patches: int) -> None:
    hidden = torch.randn(2, 1 + patches, 6)
    made = merge_patches(Patches(hidden, None), torch.randn(2, 1 + patches, 4), 100)
    assert made.hidden.shape == (2, 1 + patches - patches // 2, 6)
    assert made.sizes is not None
    assert made.sizes.sum(1).flatten().tolist() == [1 + patches] * 2
    total = (made.hidden * made.sizes).sum(1)
    assert torch.allclose(total, hidden.sum(1), atol=1e-5)
