"""The Banzhaf interaction from random coalitions, for comparison with the papers and the released code.

Training and using a model need nothing of this: `hbi_training.banzhaf.exact` gives the exact values in a thousandth of
the time.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

RELEASED_SCALE = 1000.0
"""Factor of the similarities, and so of all values, in the released code."""

_OUT = -9e15
"""Logit of a token outside the coalition in the released code's softmax."""


class Game(NamedTuple):
    """The retrieval game of B matched pairs.

    Attributes:
        similarity: Cosines (B, T, V).
        text_weights: Softmax weights of the words, (B, T), at least 0.
        video_weights: Softmax weights of the frames, (B, V), at least 0.
        text_mask: True at real tokens, (B, T) bool.
        video_mask: True at real tokens, (B, V) bool.
    """

    similarity: Tensor
    text_weights: Tensor
    video_weights: Tensor
    text_mask: Tensor
    video_mask: Tensor


class Coalitions(NamedTuple):
    """A coalition of the other players for every pair of tokens (i, j) of each game.

    Attributes:
        text_in: True at words in the coalition, (B, T, V, T) bool; [b, i, j, i] and padding are False.
        video_in: True at frames in the coalition, (B, T, V, V) bool; [b, i, j, j] and padding are False.
    """

    text_in: Tensor
    video_in: Tensor


def sampled_banzhaf_interaction(
    game: Game,
    *,
    num_samples: int,
    variant: Literal["definition", "released"] = "definition",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimates the interaction from random coalitions, drawn anew for every pair of tokens.

    Args:
        game: Games with plain cosines; the released variant scales them itself.
        num_samples: Coalitions of each pair of tokens; the released code has 100.
        variant: "definition" is the papers' (CVPR 2023, section 3.3): unbiased, its error falls as n^-1/2. "released"
            follows the authors' code, see `released_difference`.
        generator: Generator of the random numbers.

    Returns:
        Interactions (B, T, V), 0 at padding; those of the released variant are `RELEASED_SCALE` times as large.
    """
    difference = pair_difference if variant == "definition" else released_difference
    total = torch.zeros_like(game.similarity)
    for _ in range(num_samples):
        total += difference(game, draw_coalitions(game, generator))
    return total / num_samples


def draw_coalitions(game: Game, generator: torch.Generator | None = None) -> Coalitions:
    """Draws coalitions in which every other real player is with probability 1/2."""
    batch, num_text, num_video = game.similarity.shape
    device = game.similarity.device
    text_in, video_in = (
        torch.randint(0, 2, (batch, num_text, num_video, size), generator=generator, device=device).bool()
        for size in (num_text, num_video)
    )
    text_own, video_own = _own(game)
    return Coalitions(
        text_in & game.text_mask[:, None, None] & ~text_own, video_in & game.video_mask[:, None, None] & ~video_own
    )


def coalition_value(game: Game, text_in: Tensor, video_in: Tensor) -> Tensor:
    """Computes the value v of coalitions.

    Args:
        game: B games.
        text_in: True at words in the coalition, (B, ..., T) bool.
        video_in: True at frames in the coalition, (B, ..., V) bool.

    Returns:
        Values (B, ...).
    """
    similarity, text_weights, video_weights = _aligned(game, text_in.ndim - 2)
    gains = similarity.clamp_min(0) * (text_in[..., :, None] & video_in[..., None, :])
    halves = (
        (_share(weights * present) * best).sum(-1)
        for weights, present, best in (
            (text_weights, text_in, gains.amax(-1)),
            (video_weights, video_in, gains.amax(-2)),
        )
    )
    return 0.5 * sum(halves, start=torch.zeros((), dtype=similarity.dtype, device=similarity.device))


def pair_difference(game: Game, coalitions: Coalitions) -> Tensor:
    """Computes v(C + i + j) + v(C) - v(C + i) - v(C + j) of each pair (i, j): (B, T, V), 0 at padding."""
    text_own, video_own = _own(game)
    text_in, video_in = coalitions
    text_with, video_with = text_in | text_own, video_in | video_own
    difference = (
        coalition_value(game, text_with, video_with)
        + coalition_value(game, text_in, video_in)
        - coalition_value(game, text_with, video_in)
        - coalition_value(game, text_in, video_with)
    )
    return difference * _real_pairs(game)


def released_difference(game: Game, coalitions: Coalitions) -> Tensor:
    """Computes the released code's second difference: (B, T, V), 0 at padding, `RELEASED_SCALE` times as large.

    It departs from the definition in two ways. The softmax weights of a coalition go through one more softmax, and
    through two more in the first term, which flattens them. In that term i meets only j, and j only i, instead of the
    whole coalition.
    """
    text_own, video_own = _own(game)
    text_in, video_in = coalitions
    text_with, video_with = text_in | text_own, video_in | video_own
    similarity, alpha, beta = _aligned(game, 2)
    similarity = RELEASED_SCALE * similarity

    def soft(weights: Tensor, present: Tensor) -> Tensor:
        return weights.masked_fill(~present, _OUT).softmax(-1)

    def value(gains: Tensor, text_share: Tensor, video_share: Tensor) -> Tensor:
        return 0.5 * ((text_share * gains.amax(-1)).sum(-1) + (video_share * gains.amax(-2)).sum(-1))

    def term(words: Tensor, frames: Tensor) -> Tensor:
        return value(similarity * (words[..., :, None] & frames[..., None, :]), soft(alpha, words), soft(beta, frames))

    met = (text_in[..., :, None] & video_in[..., None, :]) | (text_own[..., :, None] & video_own[..., None, :])
    both = value(
        similarity * met,
        soft(torch.where(text_own, alpha, soft(alpha, text_in)), text_with),
        soft(torch.where(video_own, beta, soft(beta, video_in)), video_with),
    )
    difference = both + term(text_in, video_in) - term(text_with, video_in) - term(text_in, video_with)
    return difference * _real_pairs(game)


def _own(game: Game) -> tuple[Tensor, Tensor]:
    """Marks the words and the frames of the pairs (i, j) themselves: (T, 1, T) and (V, V) bool."""
    _, num_text, num_video = game.similarity.shape
    device = game.similarity.device
    return (
        torch.eye(num_text, dtype=torch.bool, device=device)[:, None],
        torch.eye(num_video, dtype=torch.bool, device=device),
    )


def _aligned(game: Game, num_axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inserts `num_axes` axes of length 1 after the batch axis of similarities and weights."""
    axes = (1,) * num_axes
    return tuple(part.reshape(len(part), *axes, *part.shape[1:]) for part in game[:3])  # type: ignore[return-value]


def _share(weights: Tensor) -> Tensor:
    """Divides weights (..., N) by their sum; zeros stay where they are all 0."""
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def _real_pairs(game: Game) -> Tensor:
    return game.text_mask[:, :, None] & game.video_mask[:, None, :]
