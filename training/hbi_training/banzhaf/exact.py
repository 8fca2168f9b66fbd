"""The exact Banzhaf interaction in PyTorch: batched, masked, differentiable.

`hbi_infer.tokens.banzhaf` explains the game and the closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hbi_infer.errors import InputError
from hbi_infer.tokens.banzhaf import DOUBLE, SINGLE, InteractionIndex, Quadrature, check_game, probabilities


def banzhaf_interaction(
    similarity: Tensor,
    text_weights: Tensor,
    video_weights: Tensor,
    text_mask: Tensor | None = None,
    video_mask: Tensor | None = None,
    *,
    probability: float = 0.5,
    index: InteractionIndex = "banzhaf",
) -> Tensor:
    """Computes the exact interaction of every text token with every video token.

    Gradients flow into the similarities and the weights.

    Args:
        similarity: Cosines (B, T, V); float64 is computed in float64, every other type in float32.
        text_weights: Weights (B, T), at least 0; only their ratios matter.
        video_weights: Weights (B, V), likewise.
        text_mask: False at padding, (B, T) bool; None without padding.
        video_mask: False at padding, (B, V) bool; None without padding.
        probability: Probability of every other player to be in the coalition, in [0, 1); 1/2 is Banzhaf's.
        index: "banzhaf", or "shapley": the mean over all probabilities, the Shapley interaction index.

    Returns:
        Interactions (B, T, V), 0 at padding and everywhere in an item without real tokens on one side. NaN stays NaN.

    Raises:
        InputError: Shapes do not agree, or the probability or index is unknown.
    """
    check_game(similarity.shape, text_weights.shape, video_weights.shape, probability, index)
    kind = torch.float64 if similarity.dtype == torch.float64 else torch.float32
    with torch.autocast(similarity.device.type, enabled=False):
        text = _shares("text", text_weights.to(kind), text_mask)
        video = _shares("video", video_weights.to(kind), video_mask)
        real = (text[:, :, None] > 0) & (video[:, None, :] > 0)
        gains = similarity.to(kind).clamp_min(0).masked_fill(~real, 0)
        total = torch.zeros_like(gains)
        for chance, share in probabilities(gains.shape[1] + gains.shape[2], probability, index):
            words = _weight_gain(text, chance) @ _best_gain(gains, chance)
            frames = _weight_gain(video, chance) @ _best_gain(gains.mT, chance)
            total = total + 0.5 * share * (words + frames.mT)
    return total


def _shares(side: str, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Scales weights (B, N) to a sum of 1 over real tokens, and to 0 at padding."""
    if mask is None:
        mask = torch.ones_like(weights, dtype=torch.bool)
    if mask.shape != weights.shape:
        raise InputError(
            f"{side}_mask {tuple(mask.shape)} is not of the shape of {side}_weights, {tuple(weights.shape)}"
        )
    weights = weights.masked_fill(~mask, 0)
    tiny = torch.finfo(weights.dtype).tiny
    # First by the largest: their sum might be more than the type can hold.
    weights = weights / weights.amax(-1, keepdim=True).detach().clamp_min(tiny)
    shares = weights / weights.sum(-1, keepdim=True).clamp_min(tiny)
    return shares.clamp_min(_quadrature(shares).least_weight).masked_fill(~mask, 0)


def _quadrature(weights: Tensor) -> Quadrature:
    return DOUBLE if weights.dtype == torch.float64 else SINGLE


def _best_gain(gains: Tensor, chance: float) -> Tensor:
    """Computes dM, the amount by which token j raises the best of row k: (B, K, N), at least 0 -> (B, K, N)."""
    ranked, order = gains.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(gains.shape[-1], dtype=gains.dtype, device=gains.device)
    behind = rank[:, None] - rank[None, :]  # (N, N): places of token s behind token r
    beaten = chance * (1 - chance) ** (behind - 1).clamp_min(0) * (behind > 0)
    alone = (1 - chance) ** rank
    gain = alone * (ranked - ranked @ beaten)
    return torch.zeros_like(gains).scatter(-1, order, gain)


def _weight_gain(weights: Tensor, chance: float) -> Tensor:
    """Computes dP, the amount by which token i raises the share of token k: weights (B, N) of sum 1 -> (B, N, N)."""
    smallest = torch.where(weights > 0, weights, 1).amin().item()
    nodes, measure = (torch.from_numpy(part).to(weights) for part in _quadrature(weights).nodes(smallest))
    decay = torch.exp(-weights[..., None] * nodes)  # (B, N, Q)
    factor = (1 - chance) + chance * decay
    measure = factor.log().sum(-2).exp() * measure  # (B, Q)
    own = weights[..., None] * decay / factor * measure[:, None]
    others = chance * ((decay - 1) / factor) @ own.mT
    diagonal = torch.eye(weights.shape[-1], dtype=torch.bool, device=weights.device)
    return torch.where(diagonal, torch.diag_embed(own.sum(-1)), others)
