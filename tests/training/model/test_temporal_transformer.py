"""The temporal transformer against the released code's numbers."""

from __future__ import annotations

import torch

from hbi_training.model.temporal_transformer import TemporalTransformer
from tests.golden import assert_close, golden, load_part, tensors


def test_temporal_transformer() -> None:
    g = golden("temporal.npz")
    x, mask = torch.from_numpy(g["x"]), torch.from_numpy(g["mask"]).bool()
    module = TemporalTransformer(
        width=x.shape[-1],
        layers=int(g["layers"]),
        heads=int(g["heads"]),
        max_positions=len(g["pos"]),
        layer_norm_eps=1e-12,
    )
    weights = {f"transformerClip.{k}": v for k, v in tensors(g).items()}
    weights["frame_position_embeddings.weight"] = torch.from_numpy(g["pos"])
    load_part(module, "temporal_transformer.", weights)
    assert_close(module(x, mask), g["out"])
