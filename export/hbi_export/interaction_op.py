"""The exact Banzhaf interaction as one node of an ONNX graph, with its meaning in standard operators beside it.

A graph holds a node `hbi::BanzhafInteraction` and, once, a function of that name. A runtime that knows the node has a
kernel for it; any other runs the function. PyTorch has an operator of the same name, so that every module that calls it
is exported with the node.

`hbi_infer.banzhaf` explains the mathematics. Here nothing is sorted and no size must be known: a token's rank is the
number of those that are ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import onnx.inliner
import onnxscript
import torch
from onnx import TensorProto
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset
from torch import Tensor

import hbi_training.banzhaf
from hbi_infer.banzhaf import FLOAT32_NODES, SMALLEST_WEIGHT

DOMAIN, VERSION, NAME = "hbi", 1, "BanzhafInteraction"

# What follows is read by onnxscript, which knows operators by this name and numbers by theirs.
op: Any = onnxscript.opset20
if TYPE_CHECKING:
    Floats: TypeAlias = Any
    Bools: TypeAlias = Any
else:
    Floats, Bools = onnxscript.FLOAT[...], onnxscript.BOOL[...]
FLOAT = TensorProto.FLOAT
TINY = float(np.finfo(np.float32).tiny)
FIRST_NODE, LAST_NODE, NODE_STEP = FLOAT32_NODES


def onnx_function(body: Callable[..., Any]) -> Any:
    """Reads a Python function as one of ONNX."""
    return onnxscript.script(Opset(DOMAIN, VERSION), op)(body)


@onnx_function
def mean_one(given: Floats, mask: Bools) -> Floats:
    """Weights (B, N) scaled to a mean of 1 over real tokens; 0 at padding."""
    weights = op.Where(mask, op.Cast(given, to=FLOAT), 0.0)
    count = op.ReduceSum(op.Cast(mask, to=FLOAT), [-1])
    mean = op.ReduceSum(weights, [-1]) / op.Max(count, 1.0)
    scaled = weights / op.Max(mean, TINY)
    return op.Where(mask, op.Max(scaled, SMALLEST_WEIGHT), 0.0)


@onnx_function
def best_gain(gains: Floats, chance: Floats) -> Floats:
    """(B, K, N) dM: by how much token j raises the best of row k; of rows (B, K, N), at least 0."""
    index = op.Range(0, op.Squeeze(op.Shape(gains, start=2, end=3)), 1)
    earlier = op.Less(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    # (B, K, N, N): axis 2 is token j, axis 3 every other one
    mine, other = op.Unsqueeze(gains, [3]), op.Unsqueeze(gains, [2])
    ahead = op.Or(op.Greater(other, mine), op.And(op.Equal(other, mine), earlier))
    rank = op.ReduceSum(op.Cast(ahead, to=FLOAT), [3], keepdims=0)
    behind = op.Unsqueeze(rank, [2]) - op.Unsqueeze(rank, [3])
    beaten = chance * op.Pow(1.0 - chance, op.Max(behind - 1.0, 0.0)) * other
    lost = op.ReduceSum(op.Where(op.Greater(behind, 0.0), beaten, 0.0), [3], keepdims=0)
    return op.Pow(1.0 - chance, rank) * (gains - lost)


@onnx_function
def weight_gain(weights: Floats, chance: Floats) -> Floats:
    """(B, N, N) dP: by how much token i raises the normalised weight of token k; of weights (B, N) of mean 1."""
    nodes = op.Exp(op.Range(FIRST_NODE, LAST_NODE + NODE_STEP / 2.0, NODE_STEP))
    decay = op.Exp(op.Neg(op.Unsqueeze(weights, [2])) * nodes)  # (B, N, Q)
    factor = 1.0 - chance + chance * decay
    measure = op.Exp(op.ReduceSum(op.Log(factor), [1])) * nodes * NODE_STEP  # (B, 1, Q)
    own = op.Unsqueeze(weights, [2]) * decay / factor * measure
    others = op.MatMul(chance * (decay - 1.0) / factor, op.Transpose(own, perm=[0, 2, 1]))
    index = op.Range(0, op.Squeeze(op.Shape(weights, start=1, end=2)), 1)
    diagonal = op.Equal(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    return op.Where(diagonal, op.ReduceSum(own, [2]), others)


@onnx_function
def interaction(
    similarity: Floats,
    text_weights: Floats,
    video_weights: Floats,
    text_mask: Bools,
    video_mask: Bools,
    probability: float = 0.5,
) -> Floats:
    """The node's meaning, in float32 whatever the type of its inputs."""
    text = mean_one(text_weights, text_mask)
    video = mean_one(video_weights, video_mask)
    real = op.And(op.Unsqueeze(text_mask, [2]), op.Unsqueeze(video_mask, [1]))
    gains = op.Where(real, op.Max(op.Cast(similarity, to=FLOAT), 0.0), 0.0)
    words = op.MatMul(weight_gain(text, probability), best_gain(gains, probability))
    turned = op.Transpose(gains, perm=[0, 2, 1])
    frames = op.MatMul(weight_gain(video, probability), best_gain(turned, probability))
    return op.CastLike(0.5 * (words + op.Transpose(frames, perm=[0, 2, 1])), similarity)


@cache
def function_proto() -> onnx.FunctionProto:
    """The function `BanzhafInteraction`, of standard operators alone."""
    names = ("mean_one", "best_gain", "weight_gain")
    functions = [part.to_function_proto() for part in (interaction, mean_one, best_gain, weight_gain)]
    functions[0].name = NAME
    node = onnx.helper.make_node(NAME, functions[0].input, functions[0].output, domain=DOMAIN)
    kinds = [FLOAT, FLOAT, FLOAT, TensorProto.BOOL, TensorProto.BOOL]
    values = [onnx.helper.make_tensor_value_info(*pair, None) for pair in zip(node.input, kinds, strict=True)]
    result = onnx.helper.make_tensor_value_info(node.output[0], FLOAT, None)
    graph = onnx.helper.make_graph([node], "graph", values, [result])
    opsets = [onnx.helper.make_opsetid("", op.version), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    model = onnx.helper.make_model(graph, functions=functions, opset_imports=opsets)
    # Not every runtime follows a function into another one.
    flat = onnx.inliner.inline_selected_functions(model, [(DOMAIN, name) for name in names])
    (function,) = flat.functions
    return function


@torch.library.custom_op("hbi::banzhaf_interaction", mutates_args=())
def banzhaf_interaction(
    similarity: Tensor,
    text_weights: Tensor,
    video_weights: Tensor,
    text_mask: Tensor,
    video_mask: Tensor,
    probability: float = 0.5,
) -> Tensor:
    """The operator: exported, it is the node.

    Args:
        similarity: (B, T, V) cosines.
        text_weights: (B, T), at least 0; only their ratios matter.
        video_weights: (B, V), the same.
        text_mask: (B, T) bool, False at padding.
        video_mask: (B, V) bool, the same.
        probability: With which every other player is in the coalition, in [0, 1); 1/2 is Banzhaf's.

    Returns:
        (B, T, V), of the type of the similarity; 0 at padding.
    """
    exact = hbi_training.banzhaf.banzhaf_interaction(
        similarity, text_weights, video_weights, text_mask, video_mask, probability=probability
    )
    return exact.to(similarity.dtype)


@banzhaf_interaction.register_fake
def _like_similarity(similarity: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(similarity)


def _schema() -> OpSchema:
    floats = [OpSchema.FormalParameter(name, "T") for name in ("similarity", "text_weights", "video_weights")]
    masks = [OpSchema.FormalParameter(name, "tensor(bool)") for name in ("text_mask", "video_mask")]
    return OpSchema(
        NAME,
        DOMAIN,
        VERSION,
        inputs=[*floats, *masks],
        outputs=[OpSchema.FormalParameter("interaction", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[OpSchema.Attribute("probability", onnx.helper.make_attribute("probability", 0.5), "")],
    )


_node = Op(Opset(DOMAIN, VERSION), NAME, _schema())


def _translate(*inputs: Any, probability: float = 0.5) -> Any:
    return _node(*inputs, probability=probability)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.hbi.banzhaf_interaction.default: _translate}
"""What `torch.onnx.export` takes as `custom_translation_table`."""


def add_function(proto: onnx.ModelProto) -> None:
    """Puts the function beside a graph that has the node."""
    if any((node.domain, node.op_type) == (DOMAIN, NAME) for node in proto.graph.node):
        proto.functions.append(function_proto())
