"""Weighted token-wise interaction: the similarity of a text and a video, which is the value of the cooperative game.

CVPR 2023, section 3.1, equations 3 and 4, after Wang et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PaddedPartner = Literal["ignore", "zero"]


class Tokens(NamedTuple):
    """Tokens of one level for a batch of texts or videos.

    Attributes:
        tokens: Features (B, N, D).
        weights: Importance of each token, (B, N); sums to 1 over real tokens, 0 at padding.
        mask: True at real tokens, (B, N) bool.
        slots: Token of this level that each of the M tokens of the level below was merged into, (B, M) int64, -1 at
            padding; None at the first level.
    """

    tokens: Tensor
    weights: Tensor
    mask: Tensor
    slots: Tensor | None = None


TokensByLevel = dict[str, Tokens]
"""Level name -> tokens of B texts or videos."""


def items(levels: Mapping[str, Tokens], rows: Tensor | slice) -> TokensByLevel:
    """Selects rows (N,) int64 of a batch, in any order and with repetition; slots are left out."""
    return {level: Tokens(*(part[rows] for part in tokens[:3])) for level, tokens in levels.items()}


class TokenWeights(nn.Module):
    """Learned importance of each token: a two-layer network and a softmax over the real tokens."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Returns the weights of tokens (B, N, D) with mask (B, N) bool: (B, N), 0 at padding."""
        logits = self.network(tokens).squeeze(-1).float()
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        return logits.softmax(-1) * mask.to(logits.dtype)


def pair_similarities(text: Tokens, video: Tokens) -> Tensor:
    """Returns the cosines of the tokens of B matched pairs: (B, T, V) float32."""
    return F.normalize(text.tokens.float(), dim=-1) @ F.normalize(video.tokens.float(), dim=-1).mT


def token_similarities(text: Tensor, video: Tensor) -> Tensor:
    """Returns the cosine of every text token with every video token: (N, T, D), (B, V, D) -> (N, B, T, V) float32."""
    return torch.einsum("ntd,bvd->nbtv", F.normalize(text.float(), dim=-1), F.normalize(video.float(), dim=-1))


def interact(
    similarities: Tensor,
    text_weights: Tensor,
    video_weights: Tensor,
    text_mask: Tensor,
    video_mask: Tensor,
    *,
    padded_partner: PaddedPartner = "ignore",
) -> Tensor:
    """Sums the similarity of every token with its best partner, by weight.

    Weights and masks are broadcast against the leading axes.

    Args:
        similarities: Cosines (..., T, V).
        text_weights: Weights (..., T).
        video_weights: Weights (..., V).
        text_mask: True at real tokens, (..., T) bool.
        video_mask: True at real tokens, (..., V) bool.
        padded_partner: "ignore" takes maxima over real partners; with "zero" a padded partner counts as 0.

    Returns:
        Similarities (B, ...) in [-1, 1]: one for each index of the leading axes.
    """
    text_mask, video_mask = text_mask[..., :, None], video_mask[..., None, :]
    if padded_partner == "zero":
        partners = similarities * (text_mask & video_mask).to(similarities.dtype)
        best_video, best_text = partners.amax(-1), partners.amax(-2)
    else:
        lowest = torch.finfo(similarities.dtype).min
        best_video = similarities.masked_fill(~video_mask, lowest).amax(-1)
        best_text = similarities.masked_fill(~text_mask, lowest).amax(-2)
    return 0.5 * ((text_weights * best_video).sum(-1) + (video_weights * best_text).sum(-1))


def cross_similarity(text: Tokens, video: Tokens, *, padded_partner: PaddedPartner = "ignore") -> Tensor:
    """Returns the similarity of each of N texts with each of B videos: (N, B)."""
    return interact(
        token_similarities(text.tokens, video.tokens),
        text.weights[:, None],
        video.weights[None],
        text.mask[:, None],
        video.mask[None],
        padded_partner=padded_partner,
    )


def matched_similarity(text: Tokens, video: Tokens, *, padded_partner: PaddedPartner = "ignore") -> Tensor:
    """Returns the similarity of each of B videos with its own K of the B * K texts, in the order of videos: (B, K)."""
    batch = video.tokens.shape[0]  # len would fix it in an exported graph
    # (B * K, T, D) -> (B, K, T, D)
    tokens, weights, mask = (part.unflatten(0, (batch, -1)) for part in text[:3])
    words, frames = F.normalize(tokens.float(), dim=-1), F.normalize(video.tokens.float(), dim=-1)
    return interact(
        torch.einsum("bktd,bvd->bktv", words, frames),
        weights,
        video.weights[:, None],
        mask,
        video.mask[:, None],
        padded_partner=padded_partner,
    )
