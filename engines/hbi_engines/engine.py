"""What every runtime offers: named arrays in, named arrays out, checked against what the graph declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hbi_engines.errors import EngineError

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of an input or output of a graph.

    Attributes:
        name: As in the graph.
        dtype: NumPy's name of the element type: uint8, bool, int64, float32...
        shape: A number is a fixed size. A text is a size known only when the graph runs, and two axes of one call that
            carry the same text have the same size; "" is a size of its own.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(str(size) or '?' for size in self.shape)}) {self.dtype}"


class Engine(Protocol):
    """A graph loaded into a runtime on a device."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu" or "cuda"."""

    @property
    def device_reason(self) -> str:
        """One line for the user: which device it is and why."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once.

        Raises:
            EngineError: The inputs are not what the graph declares, or the runtime failed.
        """

    def close(self) -> None:
        """Free the graph and its memory; `run` cannot be called afterwards."""


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Arrays) -> None:
    """Check names, element types and shapes of `inputs` before a runtime sees them.

    Raises:
        EngineError: Something differs; the message says what was given and what to pass instead.
    """
    expected = ", ".join(str(spec) for spec in specs)
    missing = [spec.name for spec in specs if spec.name not in inputs]
    unknown = sorted(inputs.keys() - {spec.name for spec in specs})
    if missing or unknown:
        given = ", ".join(sorted(inputs)) or "nothing"
        raise EngineError(f"the graph was given {given}; it takes exactly {expected}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        array = inputs[spec.name]
        if array.dtype != np.dtype(spec.dtype):
            raise EngineError(
                f"{spec.name} is {array.dtype}; the graph takes {spec}: make the array as {spec.dtype} to begin with, "
                f"or convert it with .astype('{spec.dtype}')"
            )
        if array.ndim != len(spec.shape):
            raise EngineError(
                f"{spec.name} has shape {array.shape}; the graph takes {spec}: it needs {len(spec.shape)} axes, "
                "the first of them the batch"
            )
        for axis, (size, declared) in enumerate(zip(array.shape, spec.shape, strict=True)):
            if isinstance(declared, int):
                if size != declared:
                    raise EngineError(
                        f"axis {axis} of {spec.name} has size {size}; the graph takes {spec}: it must be {declared}"
                    )
            elif declared and (seen := sizes.setdefault(declared, (size, spec.name)))[0] != size:
                raise EngineError(
                    f"{declared} is {seen[0]} in {seen[1]} and {size} in {spec.name}; it must be the same in {expected}"
                )
