"""The merging of tokens as one node of an ONNX graph; see `onnx_functions`.

The node is `hbi_training.model.token_merge.merge_tokens` in the "masked" mode. The released mode depends on the whole
batch, so that no kernel can compute it clip by clip: it is exported as plain operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from hbi_engines.kernels.definitions import TOKEN_MERGE
from hbi_export.graphs.onnx_functions import FLOAT, INT64, Bools, Floats, Integers, function_of, onnx_function, op
from hbi_training.model.token_merge import MergedTokens, TokenMerge, merge_tokens

FAR, MINUS_INFINITY = float(np.finfo(np.float32).max), float("-inf")


@onnx_function
def token_distances(tokens: Floats) -> Floats:
    """Computes distances (B, N, N) of tokens (B, N, D): Euclidean, divided by sqrt(D), symmetric to the bit."""
    width = op.Cast(op.Shape(tokens, start=2, end=3), to=FLOAT)
    scaled = tokens / op.Sqrt(width)
    squares = op.ReduceSum(scaled * scaled, [-1], keepdims=0)
    products = op.MatMul(scaled, op.Transpose(scaled, perm=[0, 2, 1]))
    squared = op.Unsqueeze(squares, [2]) + op.Unsqueeze(squares, [1]) - 2.0 * products
    symmetric = 0.5 * (squared + op.Transpose(squared, perm=[0, 2, 1]))
    index = op.Range(0, op.Squeeze(op.Shape(tokens, start=1, end=2)), 1)
    same = op.Equal(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    return op.Where(same, 0.0, op.Sqrt(op.Max(symmetric, 0.0)))


@onnx_function
def precedes(value: Floats) -> Bools:
    """Compares values (B, N): (B, N, N), whether the second token precedes the first, larger first, ties by index."""
    index = op.Range(0, op.Squeeze(op.Shape(value, start=1, end=2)), 1)
    earlier = op.Less(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    mine, theirs = op.Unsqueeze(value, [2]), op.Unsqueeze(value, [1])
    return op.Or(op.Greater(theirs, mine), op.And(op.Equal(theirs, mine), earlier))


@onnx_function
def token_densities(distance: Floats, mask: Bools, count: Integers) -> Floats:
    """Computes densities (B, N): exp(-mean squared distance to the nearest tokens, itself included); -1 at padding."""
    among_real = op.Where(op.Unsqueeze(mask, [1]), distance, FAR)
    # Extra columns, one for each neighbour: even the shortest item has enough to choose from.
    pads = op.Concat([0, 0, 0, 0, 0], count, axis=0)
    nearest, _ = op.TopK(op.Pad(among_real, pads, FAR), count, axis=-1, largest=0)
    real = op.Less(nearest, FAR)
    distances = op.Where(real, nearest, 0.0)
    squares = op.ReduceSum(distances * distances, [-1], keepdims=0)
    found = op.ReduceSum(op.Cast(real, to=FLOAT), [-1], keepdims=0)
    return op.Where(mask, op.Exp(op.Neg(squares / op.Max(found, 1.0))), -1.0)


@onnx_function
def merge(
    tokens: Floats, score: Floats, mask: Bools, num_slots: int = 1, ratio: float = 0.5, neighbours: int = 3
) -> tuple[Floats, Bools, Integers, Floats]:
    """Defines the node: C merged tokens (B, C, D), computed in float32 whatever the type of the tokens."""
    wide = op.Cast(tokens, to=FLOAT)
    distance = token_distances(wide)
    count = op.Reshape(op.Constant(value_int=neighbours), [1])
    density = token_densities(distance, mask, count)
    both = op.And(op.Unsqueeze(mask, [1]), op.Unsqueeze(mask, [2]))
    furthest = op.ReduceMax(op.Where(both, distance, 0.0), [1, 2])
    to_denser = op.ReduceMin(op.Where(precedes(density), distance, furthest), [2], keepdims=0)
    peak = op.Where(mask, density * to_denser, -1.0)

    # The rank is a count of preceding tokens: no sort, and no size that depends on the input.
    rank = op.ReduceSum(op.Cast(precedes(peak), to=FLOAT), [2], keepdims=0)
    num_real = op.ReduceSum(op.Cast(mask, to=FLOAT), [1])
    most = op.Cast(op.Constant(value_int=num_slots), to=FLOAT)
    num_clusters = op.Min(op.Max(op.Ceil(num_real * op.Constant(value_float=ratio) - 1e-6), 1.0), most)
    is_centre = op.Less(rank, num_clusters)
    own_slot = op.CumSum(op.Cast(is_centre, to=FLOAT), 1) - 1.0  # slots are in the order of time
    slots = op.Cast(op.Range(0, op.Constant(value_int=num_slots), 1), to=FLOAT)
    cluster_mask = op.Less(op.Unsqueeze(slots, [0]), num_clusters)

    column = op.Unsqueeze(slots, [0, 2])
    centre = op.And(op.Unsqueeze(is_centre, [1]), op.Equal(op.Unsqueeze(own_slot, [1]), column))
    from_centre = op.MatMul(op.Cast(centre, to=FLOAT), distance)
    reachable = op.Where(op.Unsqueeze(cluster_mask, [2]), from_centre, FAR)
    slot = op.Where(is_centre, own_slot, op.Cast(op.ArgMin(reachable, axis=1, keepdims=0), to=FLOAT))
    member = op.And(op.Equal(op.Unsqueeze(slot, [1]), column), op.Unsqueeze(mask, [1]))

    highest = op.ReduceMax(op.Where(mask, score, -FAR), [1])
    size = op.Where(mask, op.Exp(op.Where(mask, score - highest, 0.0)), 0.0)
    share = op.Where(member, op.Unsqueeze(size, [1]), 0.0)
    shares = share / (op.ReduceSum(share, [2]) + 1e-6)
    merged = op.CastLike(op.MatMul(shares, wide), tokens)
    places = op.Cast(op.Where(mask, slot, -1.0), to=INT64)
    bias = op.Where(mask, score, MINUS_INFINITY)
    return merged, cluster_mask, places, bias


@cache
def function_proto() -> onnx.FunctionProto:
    """Returns the function `TokenMerge`, in standard operators alone."""
    return function_of(TOKEN_MERGE, merge, (token_distances, precedes, token_densities))


@torch.library.custom_op("hbi::token_merge", mutates_args=())
def token_merge(
    tokens: Tensor, score: Tensor, mask: Tensor, num_slots: int, ratio: float, neighbours: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merges tokens (B, N, D) as `merge_tokens` does; an export turns this operator into the node."""
    merged = merge_tokens(tokens, score, mask, num_slots=num_slots, ratio=ratio, neighbours=neighbours)
    return merged.tokens, merged.mask, merged.slots, merged.bias


@token_merge.register_fake
def _like_tokens(
    tokens: Tensor, score: Tensor, mask: Tensor, num_slots: int, *_others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, width = tokens.shape
    merged = tokens.new_empty((batch, num_slots, width))
    cluster_mask = mask.new_empty((batch, num_slots))
    return merged, cluster_mask, torch.empty_like(mask, dtype=torch.int64), torch.empty_like(score)


@contextmanager
def merging_as_nodes(module: nn.Module) -> Iterator[None]:
    """Makes the token merges of a module traceable as nodes, within the context."""
    merges = [part for part in module.modules() if isinstance(part, TokenMerge) and part.merging == "masked"]
    for part in merges:
        part.merge = _merge_by_operator
    try:
        yield
    finally:
        for part in merges:
            part.merge = merge_tokens


def _merge_by_operator(tokens: Tensor, score: Tensor, mask: Tensor, *, merging: str, **sizes: Any) -> MergedTokens:
    assert merging == "masked"
    return MergedTokens(*token_merge(tokens, score, mask, **sizes))
