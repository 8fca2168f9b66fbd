"""A graph of a bundle whose outputs are checked before anything is done with them, on every runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import MOST_REMEMBERED, Engine, Inputs, TensorSpec
from hbi_infer.errors import BundleError, DeviceError, EngineError


class CheckedGraph:
    """A graph that gives what its bundle's manifest says; see `hbi_engines.engine.Engine`.

    Args:
        engine: The graph in a runtime.
        name: Name of the graph, and the bundle that it is of, for messages.
        outputs: Outputs that the manifest states.
        needed: Names of the outputs that the caller uses.
        may_be_not_finite: Whether the caller itself handles numbers that are not finite.

    Raises:
        BundleError: The graph has none of an output that is needed, or declares another than the manifest.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        outputs: tuple[TensorSpec, ...],
        needed: tuple[str, ...],
        *,
        may_be_not_finite: bool = False,
    ) -> None:
        self._engine, self._name = engine, name
        self.inputs, self.outputs = engine.inputs, outputs
        self.device, self.device_reason = engine.device, engine.device_reason
        stated = {spec.name: spec for spec in outputs}
        declared = {spec.name: spec for spec in engine.outputs}
        if missing := sorted(set(needed) - (stated.keys() & declared.keys())):
            raise BundleError(f"{name} has no {', '.join(missing)}: export it again")
        for spec in outputs:
            found = declared.get(spec.name)
            if found is None or found.dtype != spec.dtype or len(found.shape) != len(spec.shape):
                raise BundleError(f"{name} has {found or f'no {spec.name}'}; its manifest says {spec}: export it again")
        self._floats = [spec for spec in outputs if np.dtype(spec.dtype).kind == "f"] if not may_be_not_finite else []
        self._fitting: set[tuple[object, ...]] = set()
        # Name of an axis of an output -> an input and its axis that have the same size.
        self._known = {
            size: (spec.name, axis)
            for spec in reversed(engine.inputs)
            for axis, size in enumerate(spec.shape)
            if isinstance(size, str) and size
        }

    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once, from inputs (B, ...) to outputs (B, ...), and checks those.

        Raises:
            EngineError: The runtime failed or was late, or an output is of another type or shape, or not finite.
        """
        try:
            made = self._engine.run(inputs)
        except DeviceError:
            raise
        except EngineError as error:
            raise EngineError(f"{self._name}: {error}") from error
        # What fitted once fits again, and a look at it takes a fifth of the time.
        sizes = {name: _shape(inputs[given])[axis] for name, (given, axis) in self._known.items()}
        batch = _shape(inputs[self.inputs[0].name])[0]
        layout = (batch, *sizes.values(), *[(array.dtype, array.shape) for array in made.values()], *made)
        if layout not in self._fitting:
            self._check_layout(batch, sizes, made)
            if len(self._fitting) == MOST_REMEMBERED:
                self._fitting.clear()
            self._fitting.add(layout)
        with np.errstate(over="ignore", invalid="ignore"):
            for spec in self._floats:
                if not _is_finite(made[spec.name]):
                    raise self._wrong(spec, "gives numbers that are not finite")
        return made

    def close(self) -> None:
        """Frees the graph."""
        self._engine.close()

    def _check_layout(self, batch: int, sizes: dict[str, int], made: Mapping[str, npt.NDArray[Any]]) -> None:
        for spec in self.outputs:
            array = made.get(spec.name)
            if not isinstance(array, np.ndarray) or array.dtype != spec.dtype or array.ndim != len(spec.shape):
                raise self._wrong(spec, "gives no such output")
            expected = [
                size if not stated else stated if isinstance(stated, int) else sizes.setdefault(stated, size)
                for size, stated in zip(array.shape, spec.shape, strict=True)
            ]
            if list(array.shape) != expected or array.shape[:1] not in ((), (batch,)):
                raise self._wrong(spec, f"gives the shape {array.shape} for a batch of {batch}")

    def _wrong(self, spec: TensorSpec, what: str) -> EngineError:
        return EngineError(
            f"{self._name} {what} for its output {spec}: use another bundle, or export this one again from a model "
            "that gives numbers"
        )


def _shape(array: Any) -> tuple[int, ...]:
    return array.shape if isinstance(array, np.ndarray) else tuple(array.__cuda_array_interface__["shape"])


def _is_finite(array: npt.NDArray[Any]) -> bool:
    """Returns whether all numbers are finite. A sum of squares tells, unless it overflows, in a third of the time."""
    if array.itemsize > 2:
        flat = array.ravel()
        # Not `dot`: threads of BLAS would get in the way of the runtime's, which makes a run wait for milliseconds.
        if math.isfinite(np.einsum("n,n->", flat, flat)):
            return True
    return bool(np.isfinite(array).all())
