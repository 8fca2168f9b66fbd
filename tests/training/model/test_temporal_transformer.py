"""The temporal transformer against the released code's numbers."""

from __future__ import annotations

import pytest
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


@pytest.mark.parametrize(("layers", "window"), [(1, 1), (2, 1), (2, 2)])
def test_a_frame_sees_no_further_than_the_windows_of_all_layers(layers: int, window: int) -> None:
    torch.manual_seed(0)
    module = TemporalTransformer(width=16, layers=layers, heads=2, max_positions=12, window=window).eval()
    frames, mask = torch.randn(1, 12, 16), torch.ones(1, 12, dtype=torch.bool)
    other = frames.clone()
    other[0, 6] += 1
    with torch.no_grad():
        changed = (module(frames, mask) != module(other, mask)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(6 - layers * window, 7 + layers * window))
