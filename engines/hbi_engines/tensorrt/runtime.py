"""Runs engines of TensorRT and TensorRT-RTX on NVIDIA GPUs: one backend, for their Python interfaces are alike.

It builds no engines: that takes minutes and memory, and `hbi-export trt` does it beforehand.
"""

from __future__ import annotations

import hashlib
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_engines.cuda.driver import driver_problem, visible_gpus
from hbi_engines.engine import Engine, Inputs, check_inputs, one_at_a_time
from hbi_engines.engine_files import FLAVORS, EngineRecord, Flavor, Target, read_engine
from hbi_engines.engine_options import EngineOptions
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.tensorrt.flavor import collecting_logger, compute_capabilities, import_flavor

if TYPE_CHECKING:
    from hbi_engines.cuda.memory import CapturedWork


class TensorRTEngine:
    """An engine on the first visible GPU; see `hbi_engines.engine.Engine`. Not for two threads at once.

    Args:
        library: Module of the flavour.
        context: Execution context of the engine.
        record: Record of the engine.
        device: Name of the device in `--device`.
        device_reason: A line for the user.
    """

    def __init__(self, library: Any, context: Any, record: EngineRecord, device: str, device_reason: str) -> None:
        from hbi_engines.cuda.memory import CudaWorkspace

        self.inputs, self.outputs = record.inputs, record.outputs
        self.device, self.device_reason = device, device_reason
        self._ranges = record.ranges
        self._context = context
        self._workspace = CudaWorkspace()
        self._input_shapes: list[tuple[int, ...]] = []
        self._output_shapes: list[tuple[int, ...]] = []
        # TensorRT-RTX captures CUDA graphs itself, once it has the kernels for a shape; see `_context_of`.
        self._captures = not hasattr(library, "CudaGraphStrategy")
        self._ran_shapes = False
        self._captured: CapturedWork | None = None

    @one_at_a_time
    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once, from inputs (B, ...) in either memory to outputs (B, ...) in that of the processor.

        See `hbi_engines.engine.Engine.run`.
        """
        from hbi_engines.cuda.memory import wait_for_other_work

        if self._context is None:
            raise EngineError("the engine is closed; open the graph again to run it")
        check_inputs(self.inputs, inputs, self._ranges, on_gpu=True)
        given = [inputs[spec.name] for spec in self.inputs]
        if not all(isinstance(array, np.ndarray) for array in given):
            wait_for_other_work()
        packed = [np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array for array in given]
        shapes = [
            array.shape if isinstance(array, np.ndarray) else tuple(array.__cuda_array_interface__["shape"])
            for array in packed
        ]
        if shapes != self._input_shapes:
            self._prepare(shapes)
        for spec, array in zip(self.inputs, packed, strict=True):
            self._workspace.write(spec.name, array)
        self._execute()
        results = {}
        for spec, shape in zip(self.outputs, self._output_shapes, strict=True):
            results[spec.name] = np.empty(shape, spec.dtype)
            self._workspace.read(spec.name, results[spec.name])
        self._workspace.synchronize()
        return results

    def close(self) -> None:
        """Frees the engine and its memory."""
        if self._context is not None:
            self._forget_shapes()
            self._context = None
            self._workspace.close()

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        """Prepares the context and the buffers for inputs of these shapes."""
        self._forget_shapes()
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not self._context.set_input_shape(spec.name, shape):
                raise EngineError(f"TensorRT refused the shape {shape} of {spec}: build the engine again for it")
        if unknown := self._context.infer_shapes():
            raise EngineError(f"TensorRT cannot tell the shapes of {', '.join(unknown)}: build the engine again")
        self._output_shapes = [tuple(self._context.get_tensor_shape(spec.name)) for spec in self.outputs]
        for spec, shape in zip((*self.inputs, *self.outputs), (*shapes, *self._output_shapes), strict=True):
            size_bytes = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
            self._context.set_tensor_address(spec.name, self._workspace.reserve(spec.name, size_bytes))
        self._input_shapes = shapes

    def _forget_shapes(self) -> None:
        if self._captured is not None:
            self._captured.close()
        self._input_shapes, self._ran_shapes, self._captured = [], False, None

    def _execute(self) -> None:
        """Adds the engine's work to the stream, as a CUDA graph from the second run with the same shapes on."""
        if self._captures and self._ran_shapes and self._captured is None:
            try:
                self._captured = self._workspace.capture(self._enqueue)
            except EngineError:  # layers that wait for the GPU cannot be captured
                self._captures = False
        if self._captured is not None:
            self._captured.launch()
        else:
            self._enqueue()
        self._ran_shapes = True

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._workspace.stream):
            raise EngineError("TensorRT failed while it ran the engine; its own message above says why")


def open_built(flavor: Flavor, precision: str, graph: bytes, options: EngineOptions) -> Engine:
    """Loads the engine that was built of the graph for this GPU, where there is no `problem`.

    Raises:
        DeviceError: No engine fits; says why, and how to build one.
        EngineError: The engine's file was altered, a plugin is missing, or TensorRT refused it.
    """
    if options.built is None:
        raise DeviceError(
            f"device {flavor.device} runs engines that were built of a bundle's graphs, and this graph comes without "
            "a bundle: open the bundle, or choose device cuda"
        )
    library = import_flavor(flavor)
    gpu = visible_gpus()[0]
    target = Target(flavor, library.__version__, precision, gpu)
    path, record = options.built.find(hashlib.sha256(graph).hexdigest(), target)
    device = flavor.device if precision == "fp32" else f"{flavor.device}:{precision}"
    reason = f"{device} {record.version} in {precision} on {gpu.name}, {options.why}"
    return load(library, read_engine(path, record), record, f"{path} on the {gpu.name}", device, reason)


def load(
    library: Any, content: bytes, record: EngineRecord, where: str, device: str, device_reason: str
) -> TensorRTEngine:
    """Loads an engine that fits.

    Args:
        library: Module of the flavour.
        content: Bytes of the engine.
        record: Record of the engine.
        where: Name of the engine in messages.
        device: Name of the device in `--device`.
        device_reason: A line for the user.

    Raises:
        DeviceError: The plugins that the engine calls cannot be registered.
        EngineError: A plugin is missing, or TensorRT refused the engine.
    """
    context = _context_of(_deserialize(library, content, record, where), library)
    return TensorRTEngine(library, context, record, device, device_reason)


def problem(flavor: Flavor) -> str:
    """Returns why the flavour cannot run engines here and how to mend it; empty if no reason is known."""
    install = f'pip install "hbi-infer[{flavor.option}]"'
    try:
        library = import_flavor(flavor)
    except DeviceError as error:
        return str(error)
    if reason := driver_problem():
        return reason
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return f"cuda-bindings is not installed; {install}"
    gpu = visible_gpus()[0]
    built_for = compute_capabilities(library)
    if flavor.option == "rtx" and gpu.compute_capability not in built_for:
        return (
            f"it has no code for the {gpu.name} ({gpu.compute_capability}), only for {', '.join(built_for)}; "
            "use device tensorrt or cuda"
        )
    return ""


def _deserialize(library: Any, content: bytes, record: EngineRecord, where: str) -> Any:
    if record.plugins:
        from hbi_engines.tensorrt.plugins import register_plugins

        register_plugins(FLAVORS[record.flavor])
    registry = library.get_plugin_registry()
    for plugin in record.plugins:
        if registry.get_creator(plugin.name, plugin.version, plugin.namespace) is None:
            raise EngineError(
                f"{where} calls the plugin {plugin}, which is not registered: install the version that built it, or "
                "build it again"
            )
    logger = collecting_logger(library)
    runtime = library.Runtime(logger)
    if hasattr(runtime, "get_engine_validity"):
        validity, found = runtime.get_engine_validity(content)
        if validity == library.EngineValidity.INVALID:
            kinds = library.EngineInvalidityDiagnostics.__members__.items()
            reasons = [name.lower().replace("_", " ") for name, kind in kinds if found & int(kind)]
            raise EngineError(
                f"{record.flavor} says that {where} is invalid: {', '.join(reasons + logger.errors) or 'no reason'}; "
                "build it again with 'hbi-export trt'"
            )
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(
            f"{record.flavor} refused {where}: {'; '.join(logger.errors) or 'no reason'}; build it again with "
            "'hbi-export trt'"
        )
    return engine


def _context_of(engine: Any, library: Any) -> Any:
    if hasattr(library, "CudaGraphStrategy"):
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise EngineError("TensorRT made no execution context: the GPU's memory may be full; see nvidia-smi")
    return context
