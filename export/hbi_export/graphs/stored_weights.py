"""Stores weights smaller than they are computed with: the graph is smaller and loads faster, at full speed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.half_products import set_nodes
from hbi_training.weights.rounding import ROUNDED_FROM, Weights, channel_scale


def store_weights(proto: onnx.ModelProto, weights: Weights) -> None:
    """Stores large float32 weights smaller, with nodes behind them that a runtime folds when it loads the graph.

    "float16" halves them. "int8" quarters those that are whole numbers times a scale for each channel, as `rounded`
    makes them. The graph computes in float32 either way.
    """
    kept: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for weight in proto.graph.initializer:
        large = weight.data_type == TensorProto.FLOAT and int(np.prod(weight.dims)) >= ROUNDED_FROM
        values = numpy_helper.to_array(weight)
        if large and weights == "float16":
            half = f"{weight.name}_half"
            kept.append(numpy_helper.from_array(values.astype(np.float16), half))
            nodes.append(helper.make_node("Cast", [half], [weight.name], to=TensorProto.FLOAT))
        elif large and weights == "int8" and (found := _as_whole_numbers(values)):
            whole, scale, wide = (f"{weight.name}_{part}" for part in ("whole", "scale", "wide"))
            kept += [numpy_helper.from_array(found[0], whole), numpy_helper.from_array(found[1], scale)]
            nodes.append(helper.make_node("Cast", [whole], [wide], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [wide, scale], [weight.name]))
        else:
            kept.append(weight)
    nodes += proto.graph.node
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept)
    proto.graph.node.extend(nodes)


def widen_weights(proto: onnx.ModelProto) -> None:
    """Undoes `store_weights`: weights are float32 again, with no nodes behind them."""
    weights = {weight.name: weight for weight in proto.graph.initializer}
    small = {name for name, weight in weights.items() if weight.data_type in (TensorProto.FLOAT16, TensorProto.INT8)}
    wide: dict[str, npt.NDArray[np.generic]] = {}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.input[0] in small and node.attribute[0].i == TensorProto.FLOAT:
            wide[node.output[0]] = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
        elif node.op_type == "Mul" and node.input[0] in wide and node.input[1] in weights:
            wide[node.output[0]] = wide[node.input[0]] * numpy_helper.to_array(weights[node.input[1]])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [weight for name, weight in weights.items() if name in used]
    kept += [numpy_helper.from_array(values, name) for name, values in wide.items() if name in used]
    kept = [TensorProto.FromString(weight.SerializeToString()) for weight in kept]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    set_nodes(proto.graph, nodes)


def _as_whole_numbers(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]] | None:
    """Splits an array into int8 and a scale for each channel of some axis; None where that would change it."""
    for axis in range(values.ndim):
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = channel_scale(torch.tensor(values), others).numpy()
        whole = np.rint(values / scale)
        if np.abs(whole * scale - values).max() <= 1e-6 * np.abs(values).max():
            return whole.astype(np.int8), scale
    return None
