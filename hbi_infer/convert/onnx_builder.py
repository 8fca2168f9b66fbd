"""A small builder of ONNX graphs, in forms that ONNX Runtime, OpenVINO and TensorRT compute fast.

Names are given, never drawn, so that the same model gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.engine import TensorSpec

OPSET = 20
STORED_SMALLER_FROM = 1024
"""Number of values from which on a weight is stored smaller, where that is asked for."""

Array = npt.NDArray[Any]
Colours = tuple[float, float, float]
Stored = Literal["float32", "float16", "int8"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


@dataclass(frozen=True)
class Linear:
    """A layer `x @ weight + bias`.

    Attributes:
        weight: (D, E) float32.
        bias: (E,) float32; None for no bias.
    """

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Norm:
    """A layer norm over the last axis.

    Attributes:
        scale: (D,) float32; None where a layer behind it has taken it over.
        shift: (D,) float32; None for no shift.
        epsilon: Number that is added to the variance.
    """

    scale: Array | None
    shift: Array | None
    epsilon: float

    @property
    def bare(self) -> Norm:
        """The norm without scale and shift, for a layer that has taken them over."""
        return Norm(None, None, self.epsilon)

    def folded_into(self, layer: Linear) -> Linear:
        """Returns the layer (D, E) that computes behind the bare norm what `layer` computes behind this one."""
        # In float64: many small products are added up, and rounded once.
        weight = layer.weight.astype(np.float64)
        bias = np.zeros(weight.shape[1]) if layer.bias is None else layer.bias.astype(np.float64)
        if self.shift is not None:
            bias = bias + self.shift.astype(np.float64) @ weight
        if self.scale is not None:
            weight = self.scale.astype(np.float64)[:, None] * weight
        is_needed = layer.bias is not None or self.shift is not None
        return Linear(weight.astype(np.float32), bias.astype(np.float32) if is_needed else None)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention.

    Attributes:
        query: Layer (D, E) of queries.
        key: Layer (D, E) of keys.
        value: Layer (D, E) of values.
        output: Layer (E, D) behind the heads.
        heads: Number of heads.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int

    def behind(self, norm: Norm) -> Attention:
        """Returns the attention that takes scale and shift of a norm before it over."""
        query, key, value = (norm.folded_into(part) for part in (self.query, self.key, self.value))
        return Attention(query, key, value, self.output, self.heads)

    @property
    def scaled(self) -> Linear:
        """The layer (D, E) of queries, divided by the root of a head's width, so that no scores need scaling."""
        factor = 1.0 / math.sqrt(self.query.weight.shape[1] // self.heads)
        bias = self.query.bias
        return Linear(
            (self.query.weight * factor).astype(np.float32),
            None if bias is None else (bias * factor).astype(np.float32),
        )


def joined(layers: Sequence[Linear]) -> Linear:
    """Joins layers (D, E) on the same input into one, with their outputs side by side."""
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    if all(layer.bias is None for layer in layers):
        return Linear(weight)
    widths = [layer.weight.shape[1] for layer in layers]
    biases = [
        np.zeros(width, np.float32) if layer.bias is None else layer.bias
        for layer, width in zip(layers, widths, strict=True)
    ]
    return Linear(weight, np.concatenate(biases))


@dataclass(frozen=True)
class BuiltGraph:
    """A graph that is done.

    Attributes:
        content: The serialised ONNX model.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class GraphBuilder:
    """A graph under construction. Its methods add nodes, and return the name of the result.

    Args:
        name: Name of the graph.
        stored: Format in which large weights are stored; they are computed with in float32 either way.
    """

    def __init__(self, name: str, *, stored: Stored = "float32") -> None:
        self._name, self._stored = name, stored
        self._nodes: list[onnx.NodeProto] = []
        self._casts: list[onnx.NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._inputs: list[TensorSpec] = []
        self._outputs: list[TensorSpec] = []
        self._made: set[str] = set()

    def input(self, spec: TensorSpec) -> str:
        """Adds an input of any shape such as (B, N, D)."""
        self._inputs.append(spec)
        return self._new(spec.name)

    def output(self, name: str, spec: TensorSpec) -> None:
        """Makes a result an output of any shape such as (B, N, D), by the name in `spec`."""
        self.node("Identity", name, name=spec.name)
        self._outputs.append(spec)

    def constant(self, name: str, values: Array | Sequence[int] | float, *, channels: int | None = None) -> str:
        """Adds values of any shape such as (D, D); whole numbers become int64, and others float32.

        Args:
            name: Name of the result.
            values: The values.
            channels: Axis of which each entry may have a scale of its own, where weights are stored in int8.
        """
        array = np.asarray(values)
        array = array.astype(np.int64 if array.dtype.kind in "iu" and array.dtype != np.uint8 else array.dtype)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        self._new(name)
        is_large = array.dtype == np.float32 and array.size >= STORED_SMALLER_FROM
        if is_large and self._stored == "float16":
            half = self._new(f"{name}_half")
            self._weights[half] = numpy_helper.from_array(_half(array), half)
            self._casts.append(helper.make_node("Cast", [half], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
        elif is_large and self._stored == "int8" and channels is not None:
            self._store_whole(name, array, channels)
        else:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _store_whole(self, name: str, array: Array, channels: int) -> None:
        """Stores weights as whole numbers with a scale for each channel, as `hbi-export` does in traced graphs."""
        others = tuple(axis for axis in range(array.ndim) if axis != channels % array.ndim)
        largest = np.abs(array).max(others, keepdims=True)
        scale = (np.maximum(largest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
        whole, factor, wide = (self._new(f"{name}_{part}") for part in ("whole", "scale", "wide"))
        self._weights[whole] = numpy_helper.from_array(np.rint(array / scale).astype(np.int8), whole)
        self._weights[factor] = numpy_helper.from_array(scale, factor)
        self._casts.append(helper.make_node("Cast", [whole], [wide], name=wide, to=TensorProto.FLOAT))
        self._casts.append(helper.make_node("Mul", [wide, factor], [name], name=f"{name}_scaled"))

    def shared(self, name: str, values: Array | Sequence[int] | float) -> str:
        """Adds values of any shape such as (D,) that several nodes use; adds them once."""
        return name if name in self._made else self.constant(name, values)

    def node(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Adds a node with one output, which gets the node's name."""
        self._nodes.append(helper.make_node(operator, list(inputs), [self._new(name)], name=name, **attributes))
        return name

    def nodes(self, operator: str, *inputs: str, names: Sequence[str], **attributes: Any) -> list[str]:
        """Adds a node with several outputs."""
        outputs = [self._new(name) for name in names]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=names[0], **attributes))
        return outputs

    def linear(self, x: str, layer: Linear, *, name: str) -> str:
        """Adds a layer on x (..., D); gives (..., E)."""
        weight = self.constant(f"{name}.weight", layer.weight, channels=1)
        if layer.bias is None:
            return self.node("MatMul", x, weight, name=name)
        product = self.node("MatMul", x, weight, name=f"{name}.product")
        return self.node("Add", product, self.constant(f"{name}.bias", layer.bias), name=name)

    def norm(self, x: str, norm: Norm, width: int, *, name: str) -> str:
        """Adds a layer norm on x (..., D)."""
        if norm.scale is None:
            scale = self.shared(f"ones_{width}", np.ones(width, np.float32))
        else:
            scale = self.constant(f"{name}.scale", norm.scale)
        parts = [scale] if norm.shift is None else [scale, self.constant(f"{name}.shift", norm.shift)]
        return self.node("LayerNormalization", x, *parts, name=name, axis=-1, epsilon=norm.epsilon)

    def activation(self, x: str, kind: Activation, *, name: str) -> str:
        """Adds an activation on x (..., D)."""
        match kind:
            case "gelu":
                return self.node("Gelu", x, name=name, approximate="none")
            case "gelu_tanh":
                return self.node("Gelu", x, name=name, approximate="tanh")
            case "relu":
                return self.node("Relu", x, name=name)
        scaled = x
        if kind == "quick_gelu":
            scaled = self.node("Mul", x, self.shared("quick_gelu_factor", 1.702), name=f"{name}.scaled")
        return self.node("Mul", x, self.node("Sigmoid", scaled, name=f"{name}.gate"), name=name)

    def attention(self, x: str, attention: Attention, *, name: str, mask: str = "", queries: str = "") -> str:
        """Adds multi-head attention on x (B, N, D).

        Queries, keys and values come of one product, or of two where the queries are other tokens. Scores are not
        scaled, for the weights of the queries are.

        Args:
            x: (B, N, D).
            attention: Layers.
            name: Name of the result.
            mask: Name of a term that is added to the scores, such as (B, 1, N, N); "" for none.
            queries: Name of other tokens (B, M, D) that ask; "" for x itself.

        Returns:
            Name of (B, N, D), or of (B, M, D).
        """
        if queries:
            asked = self.linear(queries, attention.scaled, name=f"{name}.asked")
            both = self.linear(x, joined([attention.key, attention.value]), name=f"{name}.both")
            (query,) = self._heads(asked, attention, ["query"], name)
            key, value = self._heads(both, attention, ["key", "value"], name)
        else:
            layer = joined([attention.scaled, attention.key, attention.value])
            whole = self.linear(x, layer, name=f"{name}.all")
            query, key, value = self._heads(whole, attention, ["query", "key", "value"], name)
        return self._attend(query, key, value, attention, name=name, mask=mask)

    def _heads(self, product: str, attention: Attention, parts: Sequence[str], name: str) -> list[str]:
        """Splits (B, N, P * E) into P parts (B, heads, N, E / heads); keys are (B, heads, E / heads, N)."""
        shape = self.shared(f"split_{attention.heads}", [0, 0, attention.heads, -1])
        names = [f"{name}.{part}_rows" for part in parts]
        rows = (
            self.nodes("Split", product, names=names, axis=2, num_outputs=len(parts)) if len(parts) > 1 else [product]
        )
        found = []
        for part, row in zip(parts, rows, strict=True):
            split = self.node("Reshape", row, shape, name=f"{name}.{part}_split")
            order = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
            found.append(self.node("Transpose", split, name=f"{name}.{part}", perm=order))
        return found

    def _attend(self, query: str, key: str, value: str, attention: Attention, *, name: str, mask: str) -> str:
        scores = self.node("MatMul", query, key, name=f"{name}.scores")
        if mask:
            scores = self.node("Add", scores, mask, name=f"{name}.masked")
        shares = self.node("Softmax", scores, name=f"{name}.shares", axis=-1)
        mixed = self.node("MatMul", shares, value, name=f"{name}.mixed")
        turned = self.node("Transpose", mixed, name=f"{name}.turned", perm=[0, 2, 1, 3])
        width = attention.value.weight.shape[1]
        flat = self.node("Reshape", turned, self.shared(f"join_{width}", [0, 0, width]), name=f"{name}.joined")
        return self.linear(flat, attention.output, name=name)

    def unit(self, x: str, *, name: str) -> str:
        """Adds scaling of vectors (..., D) to length 1; a zero vector stays zero."""
        axis = self.shared("last_axis", [-1])
        length = self.node("ReduceL2", x, axis, name=f"{name}.length", keepdims=1)
        least = self.node("Max", length, self.shared("least_length", 1e-12), name=f"{name}.divisor")
        return self.node("Div", x, least, name=name)

    def model(self) -> onnx.ModelProto:
        """Returns the graph as a model."""
        given, made = ([_value_info(spec) for spec in specs] for specs in (self._inputs, self._outputs))
        weights = list(self._weights.values())
        graph = helper.make_graph([*self._casts, *self._nodes], self._name, given, made, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        model.producer_name = "hbi-infer"
        return model

    def serialised(self) -> bytes:
        """Returns the bytes of the checked model; the same calls give the same bytes."""
        content: bytes = self.model().SerializeToString(deterministic=True)
        onnx.checker.check_model(content, full_check=True)
        return content

    def built(self) -> BuiltGraph:
        """Returns the checked graph with its inputs and outputs."""
        return BuiltGraph(self.serialised(), tuple(self._inputs), tuple(self._outputs))

    def _new(self, name: str) -> str:
        if name in self._made:
            raise ValueError(f"the graph has two results of the name {name}")
        self._made.add(name)
        return name


def pixels_to_patches(graph: GraphBuilder, frames: str, *, size: int, patch: int, name: str, lead: int = 0) -> str:
    """Adds the cutting of pictures into patches, as bytes until the end, where they become float32.

    Args:
        graph: The graph.
        frames: Name of (N, H, W, 3) uint8.
        size: H = W, in pixels; what is left over beside the last whole patch is cut off.
        patch: Height and width of a patch.
        name: Name of the result.
        lead: Number of rows of zeros before the patches of each picture, for class tokens.

    Returns:
        Name of (N, lead + P, D) float32: the N pictures, their P patches from left to right and downwards, and
        the D = 3 * patch * patch values of each, by rows, columns and colours.
    """
    side = size // patch
    if (kept := side * patch) < size:
        bounds = [graph.constant(f"{name}.{part}", [end, end]) for part, end in (("from", 0), ("to", kept))]
        axes = graph.constant(f"{name}.axes", [1, 2])
        frames = graph.node("Slice", frames, *bounds, axes, name=f"{name}.kept")
    rows = graph.node(
        "Reshape", frames, graph.constant(f"{name}.cut", [-1, side, patch, side, patch * 3]), name=f"{name}.rows"
    )
    turned = graph.node("Transpose", rows, name=f"{name}.turned", perm=[0, 1, 3, 2, 4])
    shape = graph.constant(f"{name}.shape", [-1, side * side, patch * patch * 3])
    bytes_ = graph.node("Reshape", turned, shape, name=f"{name}.bytes")
    if lead:
        bytes_ = graph.node("Pad", bytes_, graph.constant(f"{name}.lead", [0, lead, 0, 0, 0, 0]), name=f"{name}.led")
    return graph.node("Cast", bytes_, name=name, to=TensorProto.FLOAT)


def patch_layer(kernel: Array, bias: Array | None, mean: Colours, deviation: Colours) -> Linear:
    """Returns the layer that takes bytes of patches, as `pixels_to_patches` gives them, to their embedding.

    Args:
        kernel: (D, 3, P, P) of a convolution on normalised pictures.
        bias: (D,), or None.
        mean: Mean of each colour, from 0 to 1.
        deviation: Deviation of each colour.
    """
    weight = kernel.astype(np.float64) / (255.0 * np.asarray(deviation, np.float64))[:, None, None]
    offset = -(weight.sum((2, 3)) * 255.0 * np.asarray(mean, np.float64)).sum(1)
    if bias is not None:
        offset = offset + bias
    flat = weight.transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    return Linear(flat.astype(np.float32), offset.astype(np.float32))


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, dtype, list(spec.shape))


def _half(values: Array) -> Array:
    """Rounds float32 (D, E) to float16; numbers beyond its range become its largest."""
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16)
