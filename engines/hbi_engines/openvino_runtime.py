"""Runs graphs in OpenVINO on the processor, in float32 or with the products of matrices in bfloat16.

OpenVINO's own switch to bfloat16 is not used: it also rounds the distances that the clustering of tokens compares.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from hbi_engines.engine import Engine, InputCheck, Inputs, TensorSpec, one_at_a_time
from hbi_engines.engine_options import EngineOptions
from hbi_engines.errors import EngineError
from hbi_engines.time_limit import StoppedInTime, wait_for

if TYPE_CHECKING:
    from hbi_engines.half_products import Precision

LOOPS = (b"Loop", b"Scan", b"If", b"SequenceMap")
"""Operators that hold a graph; a text in the bytes tells that there may be one."""
INSTALL = 'pip install "hbi-infer[openvino]"'


class OpenVINOEngine:
    """A graph compiled by OpenVINO; see `hbi_engines.engine.Engine`. Not for two threads at once."""

    def __init__(
        self,
        request: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        device: str,
        device_reason: str,
        limit_seconds: float,
        *,
        has_loops: bool,
    ) -> None:
        self._request = request
        self._limit_seconds, self._has_loops = limit_seconds, has_loops
        self.inputs = inputs
        self._input_check = InputCheck(inputs)
        self.outputs = outputs
        self.device = device
        self.device_reason = device_reason

    @one_at_a_time
    def run(self, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once, from inputs (B, ...) to outputs (B, ...); see `hbi_engines.engine.Engine.run`."""
        if self._request is None:
            raise EngineError("the engine is closed; open the graph again to run it")
        self._input_check.check(inputs)
        made = self._made(inputs)
        return {spec.name: made[spec.name] for spec in self.outputs}

    def _made(self, inputs: Inputs) -> Any:
        request = self._request

        def infer() -> Any:
            with _mapped("failed while it ran the graph"):
                return request.infer(dict(inputs))

        if self._has_loops:  # OpenVINO stops between two nodes, so never in a loop
            return wait_for(infer, self._limit_seconds, "a run", stop=request.cancel)
        with StoppedInTime(request.cancel, self._limit_seconds, "a run"):
            return infer()

    def close(self) -> None:
        """Frees the compiled graph."""
        self._request = None


def open_compiled(precision: Precision, graph: bytes, options: EngineOptions) -> Engine:
    """Compiles the graph, where there is no `problem`.

    Raises:
        EngineError: OpenVINO refused the graph.
    """
    import openvino

    content, inputs, outputs = _in_standard_operators(graph, precision)
    has_loops = any(name in content for name in LOOPS)
    core = openvino.Core()
    properties = {
        # By default OpenVINO computes float32 in bfloat16 on some processors.
        "INFERENCE_PRECISION_HINT": "f32",
        # Where weights are stored in int8, OpenVINO would round activations to int8 on some processors.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }

    def compiled() -> Any:
        with _mapped("refused the graph"):
            return core.compile_model(core.read_model(content), "CPU", properties).create_infer_request()

    request = wait_for(compiled, options.limit_seconds, "loading")
    device = "openvino" if precision == "fp32" else f"openvino:{precision}"
    return OpenVINOEngine(
        request, inputs, outputs, device, options.on_processor(device), options.limit_seconds, has_loops=has_loops
    )


def problem(precision: Precision) -> str:
    """Returns why OpenVINO cannot run here and how to mend it; empty if no reason is known."""
    try:
        import onnx  # noqa: F401 - writes functions out, which OpenVINO does not know
        import openvino
    except ImportError as error:
        return f"OpenVINO cannot be imported ({error}); {INSTALL}"
    if not hasattr(openvino, "Core"):
        return f"openvino is installed without contents: pip uninstall -y openvino, then {INSTALL}"
    core = openvino.Core()
    if "CPU" not in core.available_devices:
        return f"OpenVINO finds none of its processor plugins: pip uninstall -y openvino, then {INSTALL}"
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "this processor does not compute in bfloat16 (AVX-512 BF16 or AMX does); use device openvino"
    return ""


def _in_standard_operators(
    graph: bytes, precision: Precision
) -> tuple[bytes, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Returns the graph with its functions written out, for OpenVINO knows none; and its inputs and outputs.

    OpenVINO also forgets the names of dynamic axes, so that they are read from the file.
    """
    import google.protobuf.message
    import onnx.inliner

    from hbi_engines.half_products import halve_products

    try:
        content, model = graph, onnx.load_from_string(graph)
    except google.protobuf.message.DecodeError as error:
        raise EngineError(f"OpenVINO refused the graph: {error}") from error
    inputs, outputs = (tuple(_spec(value) for value in side) for side in (model.graph.input, model.graph.output))
    if model.functions or precision != "fp32":
        halve_products(model.graph, precision)
        content = onnx.inliner.inline_local_functions(model).SerializeToString()
    return content, inputs, outputs


def _spec(value: Any) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else size.dim_param for size in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turns the exceptions of OpenVINO, which are built-in ones, into an EngineError."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"OpenVINO {what}: {' '.join(str(error).split())}") from error
