"""Weighted token-wise interaction: the similarity of a text and a video, and the game that the players play.

CVPR 2023, section 3.1, equations 3 and 4, after Wang et al. 2022.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PaddedPartner = Literal["ignore", "zero"]


class Tokens(NamedTuple):
    """Tokens of one level for a batch of texts or videos.

    Attributes:
        tokens: (B, N, D).
        weights: (B, N), the importance of each token; they sum to 1 over real tokens and are 0 at padding.
        mask: (B, N) bool, True at real tokens.
    """

    tokens: Tensor
    weights: Tensor
    mask: Tensor


class TokenWeights(nn.Module):
    """Learned importance of each token: a two-layer network and a softmax over the real tokens."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D), (B, N) bool -> (B, N)."""
        logits = self.network(tokens).squeeze(-1).float()
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        return logits.softmax(-1) * mask.to(logits.dtype)


def token_similarities(text: Tensor, video: Tensor) -> Tensor:
    """Cosine of every text token with every video token: (A, T, D), (B, V, D) -> (A, B, T, V)."""
    return torch.einsum("atd,bvd->abtv", F.normalize(text, dim=-1), F.normalize(video, dim=-1))


def interact(similarities: Tensor, text: Tokens, video: Tokens, *, padded_partner: PaddedPartner = "ignore") -> Tensor:
    """Every token takes its best partner, and the tokens are summed by weight: (A, B, T, V) -> (A, B).

    Args:
        similarities: From `token_similarities`, of A texts and B videos.
        text: The A texts.
        video: The B videos.
        padded_partner: "ignore" takes maxima over real partners; with "zero" a padded partner counts as 0.
    """
    text_mask, video_mask = text.mask[:, None, :, None], video.mask[None, :, None, :]
    if padded_partner == "zero":
        partners = similarities * (text_mask & video_mask).to(similarities.dtype)
        best_video, best_text = partners.amax(3), partners.amax(2)
    else:
        lowest = torch.finfo(similarities.dtype).min
        best_video = similarities.masked_fill(~video_mask, lowest).amax(3)
        best_text = similarities.masked_fill(~text_mask, lowest).amax(2)
    from_text = (text.weights[:, None, :] * best_video).sum(-1)
    from_video = (video.weights[None, :, :] * best_text).sum(-1)
    return 0.5 * (from_text + from_video)
