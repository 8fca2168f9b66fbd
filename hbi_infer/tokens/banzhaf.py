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
  coalitions is an integral over s of a product over words of F(s) = q + p e^(-s a); `Quadrature` computes it.
"""

from __future__ import annotations

from functools import cache
from math import ceil, log
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.tokens.similarity import Directions

InteractionIndex = Literal["banzhaf", "shapley"]


class Quadrature(NamedTuple):
    """A rule for integrals over s from 0 on of functions that vary where 1/s is between a weight and the weights' sum.

    The trapezoid rule in log s converges exponentially whatever the ratio between the weights. Its nodes below `first`,
    without end and where the function hardly varies, are a sum that a few Gauss nodes give as exactly. The last one
    follows the smallest weight.

    Attributes:
        step: Distance between the nodes in log s: the error is about e^(-pi^2 / step).
        first: Least s of the trapezoid rule, for weights that add up to 1.
        num_gauss: Number of Gauss nodes below.
        last: Product of the smallest weight and the largest s: the rest is e^(-last).
        least_weight: Least weight of a real token as a share of their sum; a smaller one counts as this.
    """

    step: float
    first: float
    num_gauss: int
    last: float
    least_weight: float

    def nodes(self, smallest: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns s (Q,) at the nodes for weights from `smallest` on, and the measure ds (Q,) of each."""
        gauss, shares = _gauss(self.num_gauss, self.step)
        count = max(ceil(log(self.last / (smallest * self.first)) / self.step), 0) + 1
        equal = np.exp(self.step * np.arange(count))
        nodes = np.concatenate([gauss, equal])
        return self.first * nodes, self.first * np.concatenate([shares, self.step * equal])


SINGLE = Quadrature(step=0.5, first=4.0, num_gauss=6, last=18.0, least_weight=1e-36)
DOUBLE = Quadrature(step=0.28, first=2.0, num_gauss=10, last=40.0, least_weight=1e-300)
"""Rules to the precision of float32 and of float64, for weights as different as these can hold."""


@cache
def _gauss(count: int, step: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns nodes (K,) and shares (K,) of the Gauss rule for the sum of step e^(-k step) f(e^(-k step)) over k >= 1.

    The nodes are the eigenvalues of the matrix of the recurrence of the orthogonal polynomials (Golub and Welsch 1969),
    which are built term by term (Stieltjes).
    """
    points = np.exp(-step * np.arange(1, ceil(-log(np.finfo(np.float64).eps) / step) + 10))
    measure = step * points
    before, polynomial = np.zeros_like(points), np.full_like(points, 1 / np.sqrt(measure.sum()))
    recurrence, norm = np.zeros((count, count)), 0.0
    for degree in range(count):
        recurrence[degree, degree] = mean = (measure * points * polynomial**2).sum()
        following = (points - mean) * polynomial - norm * before
        norm = np.sqrt((measure * following**2).sum())
        before, polynomial = polynomial, following / norm
        if degree + 1 < count:
            recurrence[degree, degree + 1] = recurrence[degree + 1, degree] = norm
    nodes, vectors = np.linalg.eigh(recurrence)
    return nodes, measure.sum() * vectors[0] ** 2


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
        _shares(side, weights, mask, kind)
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


def _shares(
    side: str, weights: npt.NDArray[np.floating[Any]], mask: npt.NDArray[np.bool_] | None, kind: type[Any]
) -> npt.NDArray[Any]:
    """Scales weights (B, N) to a sum of 1 over real tokens, with 0 at padding."""
    if mask is None:
        mask = np.ones(weights.shape, np.bool_)
    if mask.shape != weights.shape:
        raise InputError(f"{side}_mask {mask.shape} is not of the shape of {side}_weights, {weights.shape}")
    if not mask.any(axis=-1).all():
        raise InputError(f"{side}_mask leaves no real token in item {int(np.flatnonzero(~mask.any(axis=-1))[0])}")
    if (weights < 0).any():
        raise InputError(f"{side}_weights has negative values; give the softmax weights of the tokens")
    weights = np.where(mask, weights, 0).astype(np.result_type(weights, kind))
    largest = weights.max(axis=-1, keepdims=True)
    weights = weights / np.where(largest > 0, largest, 1)  # first: their sum might be more than the type can hold
    total = weights.sum(axis=-1, keepdims=True)
    weights = (weights / np.where(total > 0, total, 1)).astype(kind)
    return np.where(mask, np.maximum(weights, kind(_quadrature(weights.dtype).least_weight)), 0)


def _quadrature(kind: npt.DTypeLike) -> Quadrature:
    return DOUBLE if kind == np.float64 else SINGLE


def _best_gain(gains: npt.NDArray[Any], chance: float) -> npt.NDArray[Any]:
    """Computes dM (B, K, N): by how much token j raises the best of row k, from rows (B, K, N) of at least 0."""
    num_tokens = gains.shape[-1]
    rows = np.ascontiguousarray(gains).reshape(-1, num_tokens)
    # Equal ones may come in any order: the result is the same.
    order = np.argsort(-rows, axis=-1) + np.arange(0, rows.size, num_tokens)[:, None]
    rank = np.arange(num_tokens)
    behind = rank[:, None] - rank[None, :]  # (N, N): how far token s comes behind token r
    beaten = np.where(behind > 0, chance * (1 - chance) ** np.maximum(behind - 1, 0), 0)
    change = (np.eye(num_tokens) - beaten) * (1 - chance) ** rank
    result = np.empty(rows.size, rows.dtype)
    result[order] = rows.ravel()[order] @ change.astype(rows.dtype)
    return result.reshape(gains.shape)


def _weight_gain(weights: npt.NDArray[Any], chance: float) -> npt.NDArray[Any]:
    """Computes dP (B, N, N): by how much token i raises token k's normalised weight, from weights (B, N) of sum 1."""
    kind = weights.dtype.type
    real = weights[weights > 0]
    nodes, measure = (part.astype(kind) for part in _quadrature(kind).nodes(float(real.min())))
    # In place where it can be: the arrays (B, N, Q) are what takes time.
    decay = weights[..., None] * -nodes
    np.exp(decay, out=decay)
    factor = kind(chance) * decay
    factor += kind(1 - chance)
    measure = np.multiply.reduce(factor, axis=-2) * measure  # (B, Q)
    inverse = np.reciprocal(factor, out=factor)
    own = np.multiply(decay, inverse, out=decay)
    own *= weights[..., None]
    own *= measure[:, None]
    # p (1 - e^(-s a)) / F is 1 / F - 1.
    others: npt.NDArray[Any] = np.subtract(1, inverse, out=inverse) @ own.transpose(0, 2, 1)
    diagonal = np.arange(weights.shape[-1])
    others[:, diagonal, diagonal] = own.sum(-1)
    return others
