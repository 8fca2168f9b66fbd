"""Numbers of the authors' released code, see README.md, and how to compare with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
