"""The Banzhaf interaction of words and frames, exactly.

The players of the game are the T text tokens and the V video tokens of a pair. The value v of a coalition is the
weighted token-wise similarity (`hbi_infer.tokens.similarity`) of its tokens; a token outside it counts as a similarity
of 0. The interaction of text token i and video token j is the value that they add together, beyond the value that each
adds without the other, averaged over all coalitions C of the other players:

    I(i, j) = E_C [ v(C + i + j) + v(C) - v(C + i) - v(C + j) ]

The papers call this NP-hard and sample it (CVPR 2023, section 3.3, equation 8). It is not, for this game: a coalition
is an independent pair of a set of words and a set of frames, and each half of v is a sum of products of something that
depends on the words with something that depends on the frames. So the mean of the second difference is a product of
means of first differences, which have closed forms:

    I = 1/2 ( dP dM_text + (dQ dM_video)^T )

(where the similarity is its sum over the text alone, dP dM_text)

- dM (T, V): how much frame j raises the best similarity of word k. With the similarities of a row sorted in descending
  order x_0 >= x_1 >= ..., the frame at rank r counts if all before it are out, and beats the best one after it that is
  in: q^r (x_r - sum_{s > r} p q^(s - r - 1) x_s), where p is the probability of being in and q = 1 - p.
- dP (T, T): how much word i raises the normalised weight of word k. From 1/z = integral of e^(-sz) ds, the mean over
  coalitions is an integral over s of a product over words of F(s) = q + p e^(-s a), taken by the trapezoid rule in
  log s, which converges exponentially.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.tokens.similarity import Directions

InteractionIndex = Literal["banzhaf", "shapley"]

SMALLEST_WEIGHT = 1e-9
"""Least weight of a real token, as a share of the mean weight; smaller ones, which underflowed, count as this."""


class LogNodes(NamedTuple):
    """Equally spaced nodes in log s, from `start` to `stop`."""

    start: float
    stop: float
    step: float

    def quadrature(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns s (Q,) at the nodes, and the measure ds (Q,) of each."""
        nodes = np.exp(np.arange(self.start, self.stop + self.step / 2, self.step))
        return nodes, nodes * self.step


FLOAT32_NODES = LogNodes(-20.0, 24.0, 0.5)
FLOAT64_NODES = LogNodes(-34.0, 24.0, 0.3)
"""Nodes that cover the integrand for weights down to `SMALLEST_WEIGHT` of their mean, to the precision of the type."""


def banzhaf_interaction(
    similarity: npt.NDArray[np.floating[Any]],
    text_weights: npt.NDArray[np.floating[Any]],
    video_weights: npt.NDArray[np.floating[Any]],
    text_mask: npt.NDArray[np.bool_] | None = None,
    video_mask: npt.NDArray[np.bool_] | None = None,
    *,
    probability: float = 0.5,
    index: InteractionIndex = "banzhaf",
    directions: Directions = "both",
) -> npt.NDArray[np.floating[Any]]:
    """Computes the exact interaction of every text token with every video token.

    Args:
        similarity: (B, T, V) cosines, float32 or float64; the result is computed in that type.
        text_weights: (B, T), at least 0; only their ratios matter.
        video_weights: (B, V), at least 0; only their ratios matter.
        text_mask: (B, T) bool, False at padding; None if there is none.
        video_mask: (B, V) bool, False at padding; None if there is none.
        probability: Probability that another player is in the coalition, in [0, 1); 1/2 is Banzhaf's.
        index: "banzhaf", or "shapley": the mean over all probabilities, the Shapley interaction index.
        directions: Sums of the similarity that count.

    Returns:
        (B, T, V), 0 at padding.

    Raises:
        InputError: Shapes do not agree, a value is not a number, a weight is negative, an item has no real token on
            one side, or the probability or index is unknown.

    >>> similarity = np.array([[[0.9, 0.1], [0.2, 0.8]]])
    >>> banzhaf_interaction(similarity, np.ones((1, 2)), np.ones((1, 2))).round(3)
    array([[[ 0.6  , -0.15 ],
            [-0.125,  0.525]]])
    """
    check_game(similarity.shape, text_weights.shape, video_weights.shape, probability, index)
    for name, values in (("similarity", similarity), ("text_weights", text_weights), ("video_weights", video_weights)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} has values that are not finite numbers")
    kind = np.float64 if similarity.dtype == np.float64 else np.float32
    text, video = (
        _mean_one(side, weights, mask, kind)
        for side, weights, mask in (("text", text_weights, text_mask), ("video", video_weights, video_mask))
    )
    gains = np.maximum(similarity, 0).astype(kind) * (text[:, :, None] > 0) * (video[:, None, :] > 0)
    total = np.zeros(gains.shape, kind)
    for chance, share in probabilities(gains.shape[1] + gains.shape[2], probability, index):
        words = _weight_gain(text, chance) @ _best_gain(gains, chance)
        if directions == "text_to_video":
            total += kind(share) * words
            continue
        frames = _weight_gain(video, chance) @ _best_gain(gains.transpose(0, 2, 1), chance)
        total += kind(0.5 * share) * (words + frames.transpose(0, 2, 1))
    return total


def check_game(
    similarity: tuple[int, ...],
    text_weights: tuple[int, ...],
    video_weights: tuple[int, ...],
    probability: float,
    index: str,
) -> None:
    """Refuses shapes that do not agree, and an unknown probability or index.

    Raises:
        InputError: A shape, the probability or the index is wrong.
    """
    if len(similarity) != 3 or similarity[:2] != text_weights or similarity[::2] != video_weights:
        raise InputError(
            f"similarity {similarity}, text_weights {text_weights} and video_weights {video_weights} are not "
            "(B, T, V), (B, T) and (B, V)"
        )
    if index not in get_args(InteractionIndex):
        raise InputError(f"index is '{index}'; known are {', '.join(get_args(InteractionIndex))}")
    if not 0 <= probability < 1:
        raise InputError(f"probability is {probability}; it must be at least 0 and less than 1")


def probabilities(num_players: int, probability: float, index: InteractionIndex) -> list[tuple[float, float]]:
    """Returns probabilities of being in a coalition, with the share of each in the result.

    The interaction is a polynomial of degree `num_players - 2` in the probability, so that as many Gauss-Legendre nodes
    as half of that integrate it exactly.
    """
    if index == "banzhaf":
        return [(probability, 1.0)]
    nodes, shares = np.polynomial.legendre.leggauss(max(ceil((num_players - 1) / 2), 1))
    return [(float(0.5 + 0.5 * node), float(0.5 * share)) for node, share in zip(nodes, shares, strict=True)]


def _mean_one(
    side: str, weights: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_] | None, kind: type[Any]
) -> npt.NDArray[Any]:
    """Scales weights (B, N) to a mean of 1 over real tokens, with 0 at padding."""
    if mask is None:
        mask = np.ones(weights.shape, np.bool_)
    if mask.shape != weights.shape:
        raise InputError(f"{side}_mask {mask.shape} is not of the shape of {side}_weights, {weights.shape}")
    count = mask.sum(-1, keepdims=True)
    if not count.all():
        raise InputError(f"{side}_mask leaves no real token in item {int(np.flatnonzero(count == 0)[0])}")
    if (weights < 0).any():
        raise InputError(f"{side}_weights has negative values; give the softmax weights of the tokens")
    weights = np.where(mask, weights, 0).astype(kind)
    mean = weights.sum(-1, keepdims=True) / count
    scaled = weights / np.maximum(mean, np.finfo(kind).tiny)
    return np.where(mask, np.maximum(scaled, SMALLEST_WEIGHT), 0).astype(kind)


def _best_gain(gains: npt.NDArray[Any], chance: float) -> npt.NDArray[Any]:
    """Computes dM (B, K, N): by how much token j raises the best of row k, from rows (B, K, N) of at least 0."""
    order = np.argsort(-gains, axis=-1, kind="stable")
    ranked = np.take_along_axis(gains, order, axis=-1)
    rank = np.arange(gains.shape[-1])
    behind = rank[:, None] - rank[None, :]  # (N, N): how far token s comes behind token r
    beaten = np.where(behind > 0, chance * (1 - chance) ** np.maximum(behind - 1, 0), 0).astype(gains.dtype)
    alone = ((1 - chance) ** rank).astype(gains.dtype)
    result = np.empty_like(gains)
    np.put_along_axis(result, order, alone * (ranked - ranked @ beaten), axis=-1)
    return result


def _weight_gain(weights: npt.NDArray[Any], chance: float) -> npt.NDArray[Any]:
    """Computes dP (B, N, N): by how much token i raises token k's normalised weight, from weights (B, N) of mean 1."""
    grid = FLOAT64_NODES if weights.dtype == np.float64 else FLOAT32_NODES
    nodes, measure = (part.astype(weights.dtype) for part in grid.quadrature())
    decay = np.exp(-weights[..., None] * nodes)  # (B, N, Q)
    factor = (1 - chance) + chance * decay
    measure = np.exp(np.log(factor).sum(-2)) * measure  # (B, Q)
    own = weights[..., None] * decay / factor * measure[:, None]
    others: npt.NDArray[Any] = chance * ((decay - 1) / factor) @ own.transpose(0, 2, 1)
    diagonal = np.arange(weights.shape[-1])
    others[:, diagonal, diagonal] = own.sum(-1)
    return others
