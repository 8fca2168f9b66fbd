"""The similarity of many texts and clips as one node of an ONNX graph; see `onnx_functions`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from hbi_engines.kernels.definitions import TOKEN_SIMILARITY
from hbi_export.graphs.onnx_functions import FLOAT, Bools, Floats, function_of, onnx_function, op
from hbi_training.model.token_interaction import Tokens, cross_similarity

LOWEST = float(np.finfo(np.float32).min)


@onnx_function
def unit(tokens: Floats) -> Floats:
    """Scales tokens (B, N, D) to a length of 1, in float32."""
    wide = op.Cast(tokens, to=FLOAT)
    return wide / op.Max(op.ReduceL2(wide, [-1]), 1e-12)


@onnx_function
def with_padding(cosines: Floats, real: Bools, padding_is_zero: int) -> Floats:
    """Replaces cosines (A, B, T, V) with padded partners, before the maximum over partners."""
    ignored = op.Where(real, cosines, LOWEST)
    return op.Where(op.Cast(op.Constant(value_int=padding_is_zero), to=9), op.Where(real, cosines, 0.0), ignored)


@onnx_function
def token_scores(
    text_tokens: Floats,
    text_weights: Floats,
    video_tokens: Floats,
    video_weights: Floats,
    padding_is_zero: int = 0,
) -> Floats:
    """Defines the node: scores (A, B), computed in float32 whatever the type of its inputs."""
    words, frames = unit(text_tokens), unit(video_tokens)
    # (A, 1, T, D) x (B, D, V) -> (A, B, T, V)
    cosines = op.MatMul(op.Unsqueeze(words, [1]), op.Transpose(frames, perm=[0, 2, 1]))
    text, video = op.Cast(text_weights, to=FLOAT), op.Cast(video_weights, to=FLOAT)
    real_words = op.Unsqueeze(op.Greater(text, 0.0), [1, 3])
    real_frames = op.Unsqueeze(op.Greater(video, 0.0), [0, 2])
    best_frame = op.ReduceMax(with_padding(cosines, real_frames, padding_is_zero), [3], keepdims=0)
    best_word = op.ReduceMax(with_padding(cosines, real_words, padding_is_zero), [2], keepdims=0)
    from_words = op.ReduceSum(op.Unsqueeze(text, [1]) * best_frame, [2], keepdims=0)
    from_frames = op.ReduceSum(op.Unsqueeze(video, [0]) * best_word, [2], keepdims=0)
    return 0.5 * (from_words + from_frames)


@cache
def function_proto() -> onnx.FunctionProto:
    """Returns the function `TokenSimilarity`, in standard operators alone."""
    return function_of(TOKEN_SIMILARITY, token_scores, (unit, with_padding))


@torch.library.custom_op("hbi::token_similarity", mutates_args=())
def token_similarity(
    text_tokens: Tensor,
    text_weights: Tensor,
    video_tokens: Tensor,
    video_weights: Tensor,
    padding_is_zero: int = 0,
) -> Tensor:
    """Scores A texts with B videos; an export turns this operator into the node.

    Args:
        text_tokens: (A, T, D) of any vector length.
        text_weights: (A, T), 0 at padding.
        video_tokens: (B, V, D) of any vector length.
        video_weights: (B, V), 0 at padding.
        padding_is_zero: 1 if a padded partner counts as a cosine of 0, else 0: it is left out.

    Returns:
        (A, B) float32.
    """
    text, video = (
        Tokens(tokens.float(), weights.float(), weights > 0)
        for tokens, weights in ((text_tokens, text_weights), (video_tokens, video_weights))
    )
    return cross_similarity(text, video, padded_partner="zero" if padding_is_zero else "ignore")


@token_similarity.register_fake
def _pairs(text_tokens: Tensor, _: Tensor, video_tokens: Tensor, *_others: Any) -> Tensor:
    return text_tokens.new_empty((text_tokens.shape[0], video_tokens.shape[0]), dtype=torch.float32)
