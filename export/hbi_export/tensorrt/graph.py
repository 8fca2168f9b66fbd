"""Rewrites a graph for TensorRT; inputs, outputs and results stay the same."""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from hbi_engines.half_products import Precision, halve_products, set_nodes
from hbi_engines.kernels.definitions import KERNELS
from hbi_engines.tensorrt.plugins import NAMESPACE, VERSION
from hbi_export.graphs.stored_weights import widen_weights
from hbi_infer.errors import ExportError


def for_tensorrt(content: bytes, precision: Precision, *, plugins: bool = False) -> bytes:
    """Converts a serialised ONNX model in float32 to one that TensorRT builds, in the precision of its types.

    TensorRT follows the types in the file, and has no other option for a precision.

    Args:
        content: The model.
        precision: Precision of the products of matrices.
        plugins: Whether nodes that have a plugin ask for it; else TensorRT reads them through their functions.

    Raises:
        ExportError: The content is no ONNX model, or one in int8.
    """
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ExportError(f"cannot read the graph: {error}; export the bundle again") from error
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ExportError(
            "the graph is quantised to int8 for processors: build engines of the bundle that it was made from, with "
            "--precision fp16"
        )
    _cast_bytes_first(model.graph)
    widen_weights(model)  # TensorRT takes an int8 constant for a part of a quantised layer
    halve_products(model.graph, precision)
    if plugins:
        _ask_for_plugins(model.graph)
    return model.SerializeToString(deterministic=True)


def nodes_with_plugins(content: bytes) -> set[str]:
    """Returns the names of the nodes of a model that have plugins."""
    graph = onnx.load_from_string(content).graph
    return {node.op_type for node in graph.node if node.domain == NAMESPACE and node.op_type in KERNELS}


def _ask_for_plugins(graph: onnx.GraphProto) -> None:
    """Adds the namespace to nodes that have plugins: without it TensorRT prefers the function."""
    for node in graph.node:
        if node.domain == NAMESPACE and node.op_type in KERNELS:
            for name, value in (("plugin_namespace", NAMESPACE), ("plugin_version", VERSION)):
                node.attribute.append(helper.make_attribute(name, value))


def _cast_bytes_first(graph: onnx.GraphProto) -> None:
    """Puts a cast right behind every uint8 input: TensorRT can do nothing else with it, not even change its shape."""
    casts = []
    for given in graph.input:
        if given.type.tensor_type.elem_type == TensorProto.UINT8:
            as_floats = f"{given.name}_as_floats"
            for node in graph.node:
                node.input[:] = [as_floats if name == given.name else name for name in node.input]
            casts.append(helper.make_node("Cast", [given.name], [as_floats], name=as_floats, to=TensorProto.FLOAT))
    set_nodes(graph, [*casts, *graph.node])
