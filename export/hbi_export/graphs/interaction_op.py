"""The exact Banzhaf interaction as one node of an ONNX graph; see `onnx_functions`.

`hbi_infer.tokens.banzhaf` explains the mathematics. This form sorts nothing and needs no known size: a token's rank is
the number of tokens ahead of it. The kernel for GPUs (`banzhaf_interaction.cu` of hbi_engines) has the same nodes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from hbi_engines.kernels.definitions import BANZHAF_INTERACTION
from hbi_export.graphs.onnx_functions import FLOAT, Bools, Floats, function_of, onnx_function, op
from hbi_training.banzhaf import exact

TINY = float(np.finfo(np.float32).tiny)
FIRST_NODE, LAST_NODE, NODE_STEP = -20.0, 24.0, 0.5
"""Nodes of a trapezoid rule in log s. A graph has fixed ones: they cover weights down to `SMALLEST_WEIGHT`."""
SMALLEST_WEIGHT = 1e-9
"""Least weight of a real token, as a share of the mean weight; a smaller one counts as this."""


@onnx_function
def mean_one(given: Floats, mask: Bools) -> Floats:
    """Scales weights (B, N) to a mean of 1 over real tokens; padding gets 0."""
    weights = op.Where(mask, op.Cast(given, to=FLOAT), 0.0)
    count = op.ReduceSum(op.Cast(mask, to=FLOAT), [-1])
    mean = op.ReduceSum(weights, [-1]) / op.Max(count, 1.0)
    scaled = weights / op.Max(mean, TINY)
    return op.Where(mask, op.Max(scaled, SMALLEST_WEIGHT), 0.0)


@onnx_function
def best_gain(gains: Floats, chance: Floats) -> Floats:
    """Computes dM (B, K, N) from rows (B, K, N) of at least 0: the amount by which token j raises the best of row k."""
    index = op.Range(0, op.Squeeze(op.Shape(gains, start=2, end=3)), 1)
    earlier = op.Less(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    # (B, K, N, N): axis 2 is token j, axis 3 every other token
    mine, other = op.Unsqueeze(gains, [3]), op.Unsqueeze(gains, [2])
    ahead = op.Or(op.Greater(other, mine), op.And(op.Equal(other, mine), earlier))
    rank = op.ReduceSum(op.Cast(ahead, to=FLOAT), [3], keepdims=0)
    behind = op.Unsqueeze(rank, [2]) - op.Unsqueeze(rank, [3])
    beaten = chance * op.Pow(1.0 - chance, op.Max(behind - 1.0, 0.0)) * other
    lost = op.ReduceSum(op.Where(op.Greater(behind, 0.0), beaten, 0.0), [3], keepdims=0)
    return op.Pow(1.0 - chance, rank) * (gains - lost)


@onnx_function
def weight_gain(weights: Floats, chance: Floats) -> Floats:
    """Computes dP (B, N, N) from weights (B, N) of mean 1: the rise of token k's normalised weight by token i."""
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
    """Defines the node: (B, T, V), computed in float32 whatever the type of its inputs."""
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
    """Returns the function `BanzhafInteraction`, in standard operators alone."""
    return function_of(BANZHAF_INTERACTION, interaction, (mean_one, best_gain, weight_gain))


@torch.library.custom_op("hbi::banzhaf_interaction", mutates_args=())
def banzhaf_interaction(
    similarity: Tensor,
    text_weights: Tensor,
    video_weights: Tensor,
    text_mask: Tensor,
    video_mask: Tensor,
    probability: float = 0.5,
) -> Tensor:
    """Computes the interaction; an export turns this operator into the node.

    Args:
        similarity: (B, T, V) cosines.
        text_weights: (B, T), at least 0; only ratios matter.
        video_weights: (B, V), at least 0; only ratios matter.
        text_mask: (B, T) bool, False at padding.
        video_mask: (B, V) bool, False at padding.
        probability: Probability, in [0, 1), that another player is in the coalition; Banzhaf's is 1/2.

    Returns:
        (B, T, V) of the type of the similarity, 0 at padding.
    """
    interaction = exact.banzhaf_interaction(
        similarity, text_weights, video_weights, text_mask, video_mask, probability=probability
    )
    return interaction.to(similarity.dtype)


@banzhaf_interaction.register_fake
def _like_similarity(similarity: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(similarity)
