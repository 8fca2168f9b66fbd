"""Numbers of the authors' released code, see README.md, and how to compare with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hbi_training.weights.released import convert_state_dict, released_key
from tests.golden import recipe

FOLDER = Path(__file__).parent
OF_THE_LARGEST = 1e-4  # float32 against float32, another order of sums
Arrays = dict[str, np.ndarray]


def golden(name: str, prefix: str = "") -> Arrays:
    with np.load(FOLDER / name, allow_pickle=False) as arrays:
        return {k.removeprefix(prefix): arrays[k] for k in arrays.files if k.startswith(prefix)}


def tensors(arrays: Arrays, prefix: str = "w.") -> dict[str, Tensor]:
    return {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}


def difference(actual: Any, expected: np.ndarray, where: Any = None) -> float:
    """The largest difference, as a part of the largest expected value."""
    got, want = (np.asarray(part.detach() if isinstance(part, Tensor) else part) for part in (actual, expected))
    assert got.shape == want.shape
    if where is not None:
        got, want = got[np.asarray(where, bool)], want[np.asarray(where, bool)]
    assert np.isfinite(got).all()
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-6))


def assert_close(actual: Any, expected: np.ndarray, where: Any = None) -> None:
    assert difference(actual, expected, where) <= OF_THE_LARGEST


def released_weights(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
    """A released state dict of these shapes, with the numbers that the released code had."""
    return {k: torch.from_numpy(recipe.tensor(k, shape)) for k, shape in zip(names, shapes, strict=True)}


def released_shapes(table: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape, of every tensor of a released checkpoint."""
    rows = [line.split("\t") for line in (FOLDER / table).read_text().splitlines()[1:]]
    return {row[0]: () if row[1] == "scalar" else tuple(map(int, row[1].split("x"))) for row in rows}


def load_part(module: nn.Module, prefix: str, weights: dict[str, Tensor]) -> nn.Module:
    """Loads the tensors below `prefix` of converted weights, all of them and no others."""
    keys = [prefix + key for key in module.state_dict()]
    assert {released_key(key) for key in keys} == set(weights)
    module.load_state_dict({k.removeprefix(prefix): v for k, v in convert_state_dict(weights, keys).items()})
    return module.eval()


def clip_config(g: Arrays) -> dict[str, Any]:
    """Of clip_text.npz or clip_visual.npz; the tower that is not in it is a small one."""
    heads, projection = int(g["heads"]), g["cls"].shape[1]
    text: dict[str, int] = {"hidden_size": 64, "vocab_size": 90, "intermediate_size": 256}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 1}
    text |= {"bos_token_id": 88, "eos_token_id": 89, "pad_token_id": 0}
    vision: dict[str, int] = {"hidden_size": 64, "intermediate_size": 256}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 1}
    layers = 1 + max(int(k.split("resblocks.")[1].split(".")[0]) for k in g if "resblocks." in k)
    if "ids" in g:
        text |= {"num_hidden_layers": layers, "num_attention_heads": heads, "max_position_embeddings": 20}
    else:
        vision |= {"num_hidden_layers": layers, "num_attention_heads": heads, "image_size": 32, "patch_size": 8}
    return {"projection_dim": projection, "text_config": text, "vision_config": vision}
