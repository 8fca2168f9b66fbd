"""The protocol of every runtime: named arrays in, named arrays out; inputs are checked here against the graph's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from hbi_engines.errors import EngineError

Made = TypeVar("Made")
MOST_REMEMBERED = 1000
"""Largest number of shapes that have been checked, for each graph."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Name -> array."""


class CudaArray(Protocol):
    """An array in the memory of a GPU, such as those of PyTorch, CuPy and PyCUDA."""

    @property
    def __cuda_array_interface__(self) -> Mapping[str, Any]:
        """Address, element type and shape, as Numba's documentation defines them."""


Inputs = Mapping[str, npt.NDArray[Any] | CudaArray]


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of an input or output of a graph.

    Attributes:
        name: Name in the graph.
        dtype: Element type, by NumPy's name: uint8, bool, int64, float32...
        shape: Sizes of the axes. A number is fixed. A text names a size that only a run knows, the same for all axes
            that carry the same text; "" is a size of its own.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(str(size) or '?' for size in self.shape)}) {self.dtype}"


@dataclass(frozen=True)
class AxisRange:
    """Sizes of a dynamic axis that an engine was built for; it is fastest at the usual one."""

    least: int
    usual: int
    most: int

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


class Runnable(Protocol):
    """A graph that can be run, by any runtime."""

    def run(self, inputs: Arrays) -> Mapping[str, npt.NDArray[Any]]:
        """Computes outputs (B, ...) from inputs (B, ...), by their names."""


class Engine(Protocol):
    """A graph loaded into a runtime on a device."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of `run`."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of `run`."""

    @property
    def device(self) -> str:
        """Device that the graph runs on, a key of `hbi_engines.registry.RUNTIMES`."""

    @property
    def device_reason(self) -> str:
        """A line for the user: the device, and why it was chosen."""

    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once: inputs (B, ...) to outputs (B, ...).

        Args:
            inputs: NumPy arrays. An engine of TensorRT takes arrays in the memory of its GPU as well.

        Raises:
            EngineError: The inputs do not fit the graph, or the runtime failed.
        """

    def close(self) -> None:
        """Frees the graph and its memory; `run` cannot be called afterwards."""


def one_at_a_time(run: Callable[[Any, Inputs], Made]) -> Callable[[Any, Inputs], Made]:
    """Decorates the `run` of an engine whose runtime runs a graph for one thread at a time: other threads wait."""

    @wraps(run)
    def waiting(engine: Any, inputs: Inputs) -> Made:
        lock: Lock = engine.__dict__.setdefault("_running", Lock())  # setting it is one step, whatever the threads
        with lock:
            return run(engine, inputs)

    return waiting


def check_inputs(
    specs: tuple[TensorSpec, ...],
    inputs: Inputs,
    ranges: Mapping[str, AxisRange] | None = None,
    *,
    on_gpu: bool = False,
) -> None:
    """Checks names, element types and shapes of `inputs` before a runtime sees them.

    Args:
        specs: Inputs that the graph declares.
        inputs: Arrays that it was given.
        ranges: Name of a dynamic axis -> allowed sizes; an axis without an entry has any size.
        on_gpu: Whether arrays in the memory of a GPU are allowed.

    Raises:
        EngineError: An array does not fit; the message says what was given and what to pass instead.
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


class InputCheck:
    """`check_inputs` that remembers which names, types and shapes fit: graphs are mostly given the same ones again.

    Args:
        specs: Inputs that the graph declares.
    """

    def __init__(self, specs: tuple[TensorSpec, ...]) -> None:
        self._specs = specs
        self._fitting: set[tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]] = set()

    def check(self, inputs: Inputs) -> None:
        """Checks inputs (B, ...); see `check_inputs`."""
        arrays = [(name, array) for name, array in inputs.items() if isinstance(array, np.ndarray)]
        layout = tuple((name, array.dtype, array.shape) for name, array in arrays)
        if len(arrays) < len(inputs) or layout not in self._fitting:
            check_inputs(self._specs, inputs)
            if len(self._fitting) == MOST_REMEMBERED:
                self._fitting.clear()
            self._fitting.add(layout)


def _layout(spec: TensorSpec, array: Any, on_gpu: bool) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Returns element type and shape of an input."""
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
