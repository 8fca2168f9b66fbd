"""The weights of a model by name, each of the shape that its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.convert.onnx_builder import Linear, Norm
from hbi_infer.convert.settings import read_settings
from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.errors import BundleError

Array = npt.NDArray[Any]

INDEX = "model.safetensors.index.json"


class Weights:
    """Tensors of a model.

    Args:
        tensors: Name -> tensor of any shape and type of number.
        where: File that they come from, for messages.
    """

    def __init__(self, tensors: Mapping[str, Array], where: str) -> None:
        self._tensors, self._where = tensors, where

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int) -> Array:
        """Returns a tensor of a shape such as (D, E), as float32.

        Raises:
            BundleError: There is no such tensor, or it has another shape.
        """
        if name not in self._tensors:
            raise BundleError(
                f"{self._where} has no {name}, which its configuration asks for: fetch the model again, or choose one "
                "whose files belong together"
            )
        tensor = self._tensors[name]
        if tensor.shape != shape or tensor.dtype.kind != "f":
            raise BundleError(
                f"{self._where}: {name} is {tensor.shape} {tensor.dtype}, and by its configuration it must be {shape}: "
                "fetch the model again, or choose one whose files belong together"
            )
        return tensor.astype(np.float32)

    def number(self, name: str) -> float:
        """Returns the one number of a tensor, which is () or (1,)."""
        shape = (1,) if name in self and self._tensors[name].shape == (1,) else ()
        return float(self.take(name, *shape).reshape(()))

    def linear(self, name: str, width: int, out: int, *, bias: bool = True) -> Linear:
        """Returns a layer (D, E) that PyTorch stores as (E, D)."""
        weight = self.take(f"{name}.weight", out, width).T
        return Linear(weight, self.take(f"{name}.bias", out) if bias else None)

    def joined_linears(self, weight: str, bias: str, width: int, count: int) -> list[Linear]:
        """Returns layers (D, D) that PyTorch stores as one (count * D, D)."""
        weights, biases = self.take(weight, count * width, width), self.take(bias, count * width)
        return [
            Linear(part.T, shift) for part, shift in zip(np.split(weights, count), np.split(biases, count), strict=True)
        ]

    def norm(self, name: str, width: int, epsilon: float) -> Norm:
        """Returns a layer norm over D."""
        return Norm(self.take(f"{name}.weight", width), self.take(f"{name}.bias", width), epsilon)


def read_weights(folder: Path | str, names: tuple[str, ...]) -> Weights:
    """Reads the tensors of a model from the first of its files that is there, or from the parts that an index names.

    Args:
        folder: Folder of the model.
        names: Names of files, the best first.

    Raises:
        BundleError: There is none, or it cannot be read; nothing that it holds is run.
    """
    folder = Path(folder)
    for name in names:
        if not (folder / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return Weights(read_tensors(folder / name), str(folder / name))
        return Weights(_joined(folder, name), str(folder / name))
    raise BundleError(f"{folder} holds no weights; expected {' or '.join(names)}: fetch the model again")


def _joined(folder: Path, index: str) -> dict[str, Array]:
    content = read_settings(folder, index)
    parts = content.get("weight_map") if isinstance(content, dict) else None
    files = sorted({*parts.values()}) if isinstance(parts, dict) and {*map(type, parts.values())} == {str} else []
    tensors: dict[str, Array] = {}
    for file in files:
        if Path(file).name != file:
            raise BundleError(f"{folder / index} names {file!r:.100}; parts lie beside it: fetch the model again")
        tensors |= read_tensors(folder / file)
    return tensors
