"""CLIP's encoders against the released code's numbers, and the convolution stem."""

from __future__ import annotations

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.model.clip_encoders import ConvolutionStem, FrameEncoder, WordEncoder, build_clip
from tests.golden import assert_close, clip_config, golden, load_part, tensors


def test_clip_text() -> None:
    g = golden("clip_text.npz")
    encoder = WordEncoder(build_clip(clip_config(g)))
    weights = {f"clip.{k}": v for k, v in tensors(g).items() if k != "logit_scale"}
    load_part(encoder, "word_encoder.", weights)
    hidden = encoder(torch.from_numpy(g["ids"]), torch.from_numpy(g["mask"]).bool())
    assert_close(hidden, g["hidden"])
    end = torch.from_numpy(g["ids"]).argmax(-1)
    assert_close(hidden[torch.arange(len(hidden)), end], g["cls"])


def test_clip_visual() -> None:
    g = golden("clip_visual.npz")
    encoder = FrameEncoder(build_clip(clip_config(g)))
    load_part(encoder, "frame_encoder.", {f"clip.{k}": v for k, v in tensors(g).items()})
    assert_close(encoder(torch.from_numpy(g["image"])), g["cls"])


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("patch_size", "grid"), [(8, 12), (16, 6), (32, 3)])
def test_the_convolution_stem_keeps_the_grid_of_patches(patch_size: int, grid: int, residual: bool) -> None:
    stem = ConvolutionStem(width=32, patch_size=patch_size, residual=residual)
    assert stem(torch.zeros(2, 3, 96, 96)).shape == (2, 32, grid, grid)
    with pytest.raises(TrainingError, match="needs a patch size of 8, 16 or 32, not 12"):
        ConvolutionStem(width=32, patch_size=12)
