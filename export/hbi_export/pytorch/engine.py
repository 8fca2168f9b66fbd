"""Runs a model in PyTorch behind the protocol of the runtimes, so that both are measured by the same code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from hbi_engines.engine import Engine, Inputs, TensorSpec, check_inputs
from hbi_engines.errors import DeviceError, EngineError
from hbi_export.graphs.modules import GraphModule, graph_module, graph_names
from hbi_infer.errors import BundleError
from hbi_infer.model.graph_names import GRAPHS
from hbi_infer.model.manifest import GraphSpec
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.rounding import computes_in_bfloat16

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TorchDevice:
    """Device and precision of PyTorch, as in "torch", "torch:compile", "torch-cuda:compile:fp16".

    Attributes:
        name: Name as the user wrote it.
        place: "cpu" or "cuda".
        compiled: Whether `torch.compile` compiles the module.
        dtype: Type of products under autocast; None for float32 throughout.
    """

    name: str
    place: str
    compiled: bool
    dtype: torch.dtype | None

    @classmethod
    def named(cls, name: str) -> TorchDevice:
        """Parses a name.

        Raises:
            DeviceError: The device is not in this machine, or does not compute in that precision.
        """
        where, *options = name.split(":")
        place = "cuda" if where == "torch-cuda" else "cpu"
        dtype = next((DTYPES[option] for option in options if option in DTYPES), None)
        if place == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                f"device {name} cannot run here: PyTorch {torch.__version__} finds no GPU; see nvidia-smi"
            )
        if dtype is torch.bfloat16 and not computes_in_bfloat16(cpu=place == "cpu"):
            raise DeviceError(f"device {name} cannot run here: this machine does not compute in bfloat16; use {where}")
        return cls(name, place, "compile" in options, dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns a context in which products are computed in `dtype`."""
        return nullcontext() if self.dtype is None else torch.autocast(self.place, self.dtype)


class TorchEngine:
    """A graph's module in PyTorch; see `hbi_engines.engine.Engine`.

    Args:
        module: The module.
        spec: Inputs and outputs of the graph that was traced from it.
        how: Device and precision.
    """

    def __init__(self, module: GraphModule, spec: GraphSpec, how: TorchDevice) -> None:
        self._how, self._input_names = how, module.input_names
        self._call: Callable[..., dict[str, torch.Tensor]] | None = module.eval().to(how.place)
        if how.compiled:
            self._call = torch.compile(module)
        self.inputs: tuple[TensorSpec, ...] = spec.inputs
        self.outputs: tuple[TensorSpec, ...] = spec.outputs
        self.device = how.place  # as the runtimes call it: where it computes, not how
        kind = "compiled" if how.compiled else "eager"
        threads = f", {torch.get_num_threads()} threads" if how.place == "cpu" else ""
        self.device_reason = f"{how.name}, {kind} PyTorch {torch.__version__} on {how.place}{threads}, as asked"

    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the module once on inputs (B, ...); see `hbi_engines.engine.Engine.run`."""
        if self._call is None:
            raise EngineError("the engine is closed; open the graph again to run it")
        check_inputs(self.inputs, inputs)
        tensors = [torch.from_numpy(inputs[name]).to(self._how.place) for name in self._input_names]
        try:
            with torch.inference_mode(), self._how.autocast():
                made = self._call(*tensors)
        except RuntimeError as error:  # torch.compile's own errors are RuntimeErrors too
            raise EngineError(
                f"PyTorch failed while it ran the module: {str(error).strip().splitlines()[0]}"
            ) from error
        declared = {spec.name: spec.dtype for spec in self.outputs}
        return {name: part.to(getattr(torch, declared[name])).cpu().numpy() for name, part in made.items()}

    def close(self) -> None:
        """Frees the module."""
        self._call = None


def torch_graphs(checkpoint: Checkpoint, specs: dict[str, GraphSpec], how: TorchDevice) -> Callable[[str], Engine]:
    """Returns a function that opens the modules of a bundle's graphs by the graphs' names.

    Args:
        checkpoint: The model that the bundle was exported from.
        specs: The bundle's graphs.
        how: Device and precision.
    """
    checkpoint.model.to(how.place)

    def open_graph(name: str) -> Engine:
        if name not in specs:
            raise BundleError(f"the bundle has no graph {name}: export it again")
        module = _module(checkpoint, name)
        # A module takes its inputs one by one, in an order of its own.
        if set(module.input_names) != {spec.name for spec in specs[name].inputs}:
            raise BundleError(f"the graph {name} was exported from another model than {checkpoint.name}")
        return TorchEngine(module, specs[name], how)

    return open_graph


def _module(checkpoint: Checkpoint, name: str) -> GraphModule:
    if name not in GRAPHS:
        raise BundleError(f"{name} is a graph that this version has no module of: export the bundle again with it")
    if name not in graph_names(checkpoint.model):
        raise BundleError(f"{checkpoint.name} has no {name}: the bundle was exported from another model")
    return graph_module(checkpoint, name)
