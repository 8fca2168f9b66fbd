"""A small network whose tensors are written to files, and a pickle that does harm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.ln_1(x))


class Tower(nn.Module):
    """Modules in modules, half precision, a transposed parameter, a buffer: all that CLIP's own archives have."""

    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(Block(), Block())
        self.proj = nn.Parameter(torch.randn(4, 3).half())
        self.turned = nn.Parameter(torch.randn(3, 4).T)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return (self.resblocks(x) @ self.proj.float() + self.turned.sum()) * self.scale + self.input_resolution


def same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor) for name, tensor in expected.items()
    )


def same_arrays(actual: dict[str, npt.NDArray[Any]], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        array.dtype == expected[name].numpy().dtype and np.array_equal(array, expected[name].numpy())
        for name, array in actual.items()
    )


class Harm:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)
