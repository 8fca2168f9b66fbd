"""Merging patches between layers, against the same in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hbi_engines.registry import open_engine
from hbi_infer.convert.converter import convert_model, read_model
from hbi_infer.convert.towers import frame_graph
from hbi_infer.errors import BundleError
from hbi_training.model.clip_encoders import FrameEncoder
from tests.builders.saved_models import save, save_siglip, tiny_clip, tiny_siglip
from tests.infer.convert.test_clip import error, normalised


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("merged", [1, 3, 100])
def test_patches_merge_as_in_pytorch(merged: int, device: str, tmp_path: Path) -> None:
    model = tiny_clip(vision={"num_hidden_layers": 4, "image_size": 48})
    tower = read_model(save(model, tmp_path / "clip", crop_size=48, size=48)).vision
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    found = open_engine(frame_graph(tower, merged=merged).content, device).run({"frames": frames})["features"]
    encoder = FrameEncoder(model).eval()
    pixels = normalised(frames[None])
    with torch.no_grad():
        whole = encoder(pixels)
        encoder.merged = merged
        expected = encoder(pixels)
    assert error(found, expected) <= 1e-4
    assert error(found, whole) > 1e-3


def test_a_bundle_says_what_was_merged(tmp_path: Path) -> None:
    folder = save(tiny_clip(vision={"num_hidden_layers": 3}), tmp_path / "clip")
    manifest = convert_model(folder, tmp_path / "bundle", name="tiny", merge_tokens=2)
    assert manifest.provenance.merged_tokens == 2
    assert convert_model(folder, tmp_path / "whole", name="tiny").provenance.merged_tokens == 0


def test_a_model_that_pools_all_patches_merges_none(tmp_path: Path) -> None:
    folder = save_siglip(tiny_siglip(), tmp_path / "siglip")
    with pytest.raises(BundleError, match="pools all patches, and merges none: leave out --merge-tokens"):
        convert_model(folder, tmp_path / "bundle", name="tiny", merge_tokens=2)
