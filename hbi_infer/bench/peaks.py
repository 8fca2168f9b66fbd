"""Measures how fast this machine's processor can compute at all, for the other times to be judged by.

A large product of matrices is the best case of every network: what a stage reaches of its speed says how much there is
left to gain. It is measured by the runtimes themselves, on the threads in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.errors import EngineError
from hbi_engines.registry import open_engine
from hbi_infer.tokens.parallel import in_parts

SIDE = 1536
"""Rows and columns of the matrices: large enough that reading them costs nothing beside the product."""
RUNS = 7
COPIED_BYTES = 2**28
"""Size of an array that no cache holds."""
OPSET = 20


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Largest speeds of the processor.

    Attributes:
        float32: Operations a second of a product in float32.
        bf16: In bfloat16; None where no runtime here computes in it.
        int8: In int8.
        memory: Bytes that are read and written a second by a copy.
    """

    float32: float
    bf16: float | None
    int8: float
    memory: float


def measure_peaks(threads: int) -> Peaks:
    """Measures the speeds with a number of threads; takes a few seconds."""
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    bytes_ = rng.integers(0, 100, (SIDE, SIDE), dtype=np.uint8)
    try:
        bf16 = _product_speed(floats, "openvino:bf16", threads)
    except EngineError:  # not installed, or this processor does not compute in bfloat16
        bf16 = None
    return Peaks(
        float32=_product_speed(floats, "cpu", threads),
        bf16=bf16,
        int8=_product_speed(bytes_, "cpu", threads),
        memory=_copy_speed(),
    )


def _product_speed(matrix: npt.NDArray[np.float32] | npt.NDArray[np.uint8], device: str, threads: int) -> float:
    """Returns operations a second of the product of a matrix (N, N) with a constant one."""
    engine = open_engine(_product_graph(matrix), device, threads)
    seconds = _seconds_of(lambda: engine.run({"left": matrix}))
    engine.close()
    return float(2 * SIDE**3 / seconds)


def _product_graph(matrix: npt.NDArray[np.float32] | npt.NDArray[np.uint8]) -> bytes:
    """Returns a graph that multiplies a matrix (N, N) with a constant one, which a runtime may pack beforehand."""
    is_float = matrix.dtype == np.float32
    right = numpy_helper.from_array(matrix if is_float else (matrix.astype(np.int16) - 50).astype(np.int8), "right")
    shape = (SIDE, SIDE)
    types = (TensorProto.FLOAT, TensorProto.FLOAT) if is_float else (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node("MatMul" if is_float else "MatMulInteger", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", types[0], shape)],
        [helper.make_tensor_value_info("product", types[1], shape)],
        [right],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def _copy_speed() -> float:
    """Returns the bytes that are read and written a second by a copy that is shared by threads."""
    source = np.ones(COPIED_BYTES // 8, np.float64)
    target = np.empty_like(source)

    def copy(part: slice) -> None:
        target[part] = source[part]

    return float(2 * COPIED_BYTES / _seconds_of(lambda: in_parts(copy, len(source))))


def _seconds_of(run: Callable[[], object]) -> float:
    """Returns the median time of a call, after one that does not count."""
    run()
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return median(taken)
