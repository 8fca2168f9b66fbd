"""Counts the arithmetic operations of a graph, from which follows the least time that it can take on a machine.

Only products count (of matrices, and convolutions): they are nearly all of a network's operations, and what a
processor's peak speaks of. A multiplication and an addition are two operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx
from onnx import helper, inliner

from hbi_engines.engine import Arrays
from hbi_engines.registry import open_engine

Shape = Sequence[int]


def count_operations(content: bytes, inputs: Arrays) -> int:
    """Returns the operations of all products of one run of a graph, by the shapes that they then have.

    Products inside a branch or a loop are not counted.

    Args:
        content: The serialised graph.
        inputs: Inputs (B, ...) of the run.
    """
    model = inliner.inline_local_functions(onnx.load_from_string(content))
    products = [node for node in model.graph.node if node.op_type in COUNTS]
    operands = [(node.input[0], node.input[1], node.output[0]) for node in products]
    every = dict.fromkeys(name for names in operands for name in names)
    told = {name: f"shape {number} for the count" for number, name in enumerate(every)}
    del model.graph.output[:]
    for name, shape in told.items():
        model.graph.node.append(helper.make_node("Shape", [name], [shape]))
        model.graph.output.append(helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, [None]))
    if not told:
        return 0
    engine = open_engine(model.SerializeToString(), "cpu")
    shapes = {name: array.tolist() for name, array in engine.run(inputs).items()}
    engine.close()
    return sum(
        COUNTS[node.op_type](*(shapes[told[name]] for name in names))
        for node, names in zip(products, operands, strict=True)
    )


def _of_matrices(first: Shape, _second: Shape, result: Shape) -> int:
    return 2 * math.prod(result) * first[-1]


def _of_layer(first: Shape, second: Shape, result: Shape) -> int:
    """Counts a Gemm, either of whose operands may be transposed: (M, K) and (K, N) give (M, N)."""
    rows, columns = result
    summed = math.isqrt(math.prod(first) * math.prod(second) // (rows * columns))
    return 2 * rows * columns * summed


def _of_convolution(_pixels: Shape, kernel: Shape, result: Shape) -> int:
    return 2 * math.prod(result) * math.prod(kernel[1:])


COUNTS: dict[str, Callable[[Shape, Shape, Shape], int]] = {
    "MatMul": _of_matrices,
    "MatMulInteger": _of_matrices,
    "Gemm": _of_layer,
    "Conv": _of_convolution,
    "ConvInteger": _of_convolution,
}
"""Operator -> operations by the shapes of its two operands and of its result."""
