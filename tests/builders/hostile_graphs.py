"""Graphs that read other files, never end, grow when they are written out, or give no numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = helper.make_opsetid("", 20)


def made(nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto] = ()) -> onnx.ModelProto:
    """A model from x (1,) to y (1,)."""
    sides = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])] for name in "xy"]
    graph = helper.make_graph(nodes, "graph", *sides, initializers)
    return helper.make_model(graph, opset_imports=[OPSET, helper.make_opsetid("own", 1)], ir_version=10)


def outside(location: str) -> onnx.TensorProto:
    """A tensor of one number that lies in another file."""
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def endless(*, starts_with: str = "x") -> bytes:
    """A loop of 2^62 rounds; one that starts with "one" can be computed while the graph is loaded."""
    number, yes = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("i", TensorProto.INT64, []), ("c", TensorProto.BOOL, []))
    )
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v", "v2")]
    on = helper.make_tensor_value_info("c2", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [number, yes, floats[0]],
        [on, floats[1]],
    )
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in (("n", np.array(2**62)), ("t", np.array(True)), ("one", np.ones(1, np.float32)))
    ]
    nodes = [
        helper.make_node("Loop", ["n", "t", starts_with], ["looped"], body=body),
        helper.make_node("Add", ["x", "looped"], ["y"]),
    ]
    return made(nodes, constants).SerializeToString()


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that call the next one twice: 2^depth nodes when they are written out."""
    model = made([helper.make_node("f0", ["x"], ["y"], domain="own")])
    for number in range(depth):
        inner, domain = (f"f{number + 1}", "own") if number + 1 < depth else ("Neg", "")
        nodes = [helper.make_node(inner, [a], [b], domain=domain) for a, b in (("a", "b"), ("b", "c"))]
        model.functions.append(helper.make_function("own", f"f{number}", ["a"], ["c"], nodes, model.opset_import))
    return model
