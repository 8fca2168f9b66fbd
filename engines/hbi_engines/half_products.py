"""Converts the products of matrices of a graph to half precision; its other operators stay in float32.

PyTorch's autocast does the same: the sums of a residual stream, norms and softmaxes keep their precision, and so does
the clustering of tokens, where rounding would choose other centres. A runtime that follows the types of a graph needs
no further option.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, TypeAlias

import onnx
from onnx import NodeProto, TensorProto, helper

Precision: TypeAlias = Literal["fp32", "fp16", "bf16"]
"""Precision of the products of matrices."""

HALF_TYPES: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
MASKING = {"Add", "Sub", "Mul", "Div", "Where"}
"""Operators between the first product of an attention and its softmax."""


def halve_products(graph: onnx.GraphProto, precision: Precision, kinds: Collection[str] = PRODUCTS) -> None:
    """Casts the inputs of the products of layers and attentions, and casts their results back to float32.

    Functions beside the graph stay as they are: the exact interaction is exact in every precision. So do products that
    are in half precision or quantised already.

    Args:
        graph: The graph, which is changed in place.
        precision: Precision of the products.
        kinds: Operators to convert.
    """
    if precision == "fp32":
        return
    to = HALF_TYPES[precision]
    narrow = _narrow(graph)
    chosen = {
        node.output[0]
        for node in (*products_with_weights(graph), *_products_of_attentions(graph))
        if node.op_type in kinds and narrow.isdisjoint(node.input)
    }
    nodes: list[NodeProto] = []
    cast: set[str] = set()
    for node in graph.node:
        if not node.output or node.output[0] not in chosen:
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if name:
                if name not in cast:
                    cast.add(name)
                    nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], name=f"{name}_cast", to=to))
                node.input[position] = f"{name}_cast"
        result, product = node.output[0], f"{node.output[0]}_product"
        node.output[0] = product
        back = helper.make_node("Cast", [product], [result], name=f"{product}_back", to=TensorProto.FLOAT)
        nodes += [node, back]
    set_nodes(graph, nodes)


def _narrow(graph: onnx.GraphProto) -> set[str]:
    """Returns the names of tensors that are in half precision or come out of a quantisation."""
    halves = set(HALF_TYPES.values())
    names = {weight.name for weight in graph.initializer if weight.data_type in halves}
    for node in graph.node:
        to_half = node.op_type == "Cast" and halves & {attribute.i for attribute in node.attribute}
        if to_half or node.op_type == "DequantizeLinear":
            names.update(node.output)
    return names


def products_with_weights(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yields the layers: products of an activation and a weight."""
    constants = {weight.name for weight in graph.initializer}
    for node in graph.node:  # in topological order
        if all(name in constants for name in node.input):  # such as casts of weights that are stored smaller
            constants.update(node.output)
        if node.op_type in PRODUCTS and not constants.isdisjoint(node.input):
            yield node


def _products_of_attentions(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yields the products of attentions: queries with keys, and softmaxes with values."""
    makers = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    for softmax in (node for node in graph.node if node.op_type == "Softmax"):
        readers = [node for node in products if node.input[0] == softmax.output[0]]
        if not readers:  # the softmax makes weights, not an attention
            continue
        yield from readers
        names = list(softmax.input)
        while names:
            node = makers.get(names.pop())
            if node is not None and node.op_type == "MatMul":
                yield node
            elif node is not None and node.op_type in MASKING:
                names += node.input


def set_nodes(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """Replaces the nodes of a graph; some of the new ones may be old ones."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
