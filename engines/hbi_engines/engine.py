"""What every runtime offers: named arrays in, named arrays out, checked here against what the graph declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hbi_engines.errors import EngineError

Arrays = Mapping[str, npt.NDArray[Any]]


class CudaArray(Protocol):
    """An array in the memory of a GPU, such as those of PyTorch, CuPy and PyCUDA."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]:
        """Where it is and what it holds, as Numba's documentation defines it."""


Inputs = Mapping[str, npt.NDArray[Any] | CudaArray]


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


@dataclass(frozen=True)
class AxisRange:
    """The sizes that a dynamic axis may have in an engine that was built for some; the middle one is the fastest."""

    least: int
    usual: int
    most: int

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


class Runnable(Protocol):
    """A graph that can be run, by whatever runs it."""

    def run(self, inputs: Arrays) -> Mapping[str, npt.NDArray[Any]]:
        """Named arrays in, named arrays out."""


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
        """Where the graph runs, as in `hbi_engines.registry.RUNTIMES`."""

    @property
    def device_reason(self) -> str:
        """One line for the user: which device it is and why."""

    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: NumPy arrays. An engine of TensorRT takes arrays in the memory of its GPU as well.

        Raises:
            EngineError: The inputs are not what the graph declares, or the runtime failed.
        """

    def close(self) -> None:
        """Free the graph and its memory; `run` cannot be called afterwards."""


def check_inputs(
    specs: tuple[TensorSpec, ...],
    inputs: Inputs,
    ranges: Mapping[str, AxisRange] | None = None,
    *,
    on_gpu: bool = False,
) -> None:
    """Check names, element types and shapes of `inputs` before a runtime sees them.

    Args:
        specs: What the graph takes.
        inputs: What it was given.
        ranges: Sizes that dynamic axes may have, by the name of the axis; any size where there is none.
        on_gpu: Whether arrays in the memory of a GPU are taken.

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
        dtype, shape = _layout(spec, inputs[spec.name], on_gpu)
        if dtype != np.dtype(spec.dtype):
            raise EngineError(
                f"{spec.name} is {dtype}; the graph takes {spec}: make the array as {spec.dtype} to begin with, "
                f"or convert it with .astype('{spec.dtype}')"
            )
        if len(shape) != len(spec.shape):
            raise EngineError(
                f"{spec.name} has shape {shape}; the graph takes {spec}: it needs {len(spec.shape)} axes, "
                "the first of them the batch"
            )
        for axis, (size, declared) in enumerate(zip(shape, spec.shape, strict=True)):
            if isinstance(declared, int):
                if size != declared:
                    raise EngineError(
                        f"axis {axis} of {spec.name} has size {size}; the graph takes {spec}: it must be {declared}"
                    )
            elif declared and (seen := sizes.setdefault(declared, (size, spec.name)))[0] != size:
                raise EngineError(
                    f"{declared} is {seen[0]} in {seen[1]} and {size} in {spec.name}; it must be the same in {expected}"
                )
    for name, (size, where) in sizes.items():
        allowed = (ranges or {}).get(name)
        if allowed and not allowed.least <= size <= allowed.most:
            raise EngineError(
                f"{name} is {size} in {where}; the engine was built for {allowed}: pass parts of such a size, or build "
                "another one ('hbi-export trt' has --batch LEAST,USUAL,MOST)"
            )


def _layout(spec: TensorSpec, array: Any, on_gpu: bool) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape of an input."""
    if isinstance(array, np.ndarray):
        return array.dtype, array.shape
    described = getattr(array, "__cuda_array_interface__", None)
    if described is None:
        raise EngineError(f"{spec.name} is a {type(array).__name__}; pass a NumPy array for {spec}")
    if not on_gpu:
        raise EngineError(
            f"{spec.name} is in the memory of a GPU; this engine takes NumPy arrays: copy it to the processor, "
            "with .cpu().numpy() in PyTorch or .get() in CuPy and PyCUDA"
        )
    dtype, shape = np.dtype(described["typestr"]), tuple(described["shape"])
    packed = [dtype.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    if (strides := described.get("strides")) is not None and list(strides) != packed:
        raise EngineError(f"{spec.name} is a view with gaps in the memory of a GPU: make it contiguous first")
    return dtype, shape
