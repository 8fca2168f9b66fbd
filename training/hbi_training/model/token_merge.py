"""Token merging: entity tokens become action tokens, action tokens become event tokens (CVPR 2023, section 3.2).

Tokens are scored, grouped by DPC-KNN (density peaks over k nearest neighbours), averaged by score within their group,
and the averages attend to the tokens that they came from.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Merging = Literal["masked", "released"]


class Clusters(NamedTuple):
    """Assignment of N tokens to C clusters.

    Attributes:
        slot: Cluster of each token, (B, N) int64; arbitrary at padding.
        membership: 1 where token n belongs to cluster c, (B, C, N) float; 0 at padding in the "masked" mode.
        mask: False where a cluster is empty because the item has too few tokens, (B, C) bool.
    """

    slot: Tensor
    membership: Tensor
    mask: Tensor


def token_distances(tokens: Tensor) -> Tensor:
    """Returns Euclidean distances / sqrt(D): (B, N, D) -> (B, N, N), exactly symmetric, 0 on the diagonal."""
    # A matrix product, because cdist with dynamic axes exports badly.
    tokens = tokens / tokens.shape[-1] ** 0.5
    squares = (tokens * tokens).sum(-1)
    squared = squares[:, :, None] + squares[:, None, :] - 2.0 * tokens @ tokens.transpose(1, 2)
    squared = 0.5 * (squared + squared.transpose(1, 2))
    off_diagonal = 1.0 - torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    return squared.clamp_min(0.0).sqrt() * off_diagonal


def _precedes(value: Tensor) -> Tensor:
    """Ranks by value, largest first, ties by index: (B, N) -> (B, N, N) bool, [b, i, j] True where j precedes i."""
    index = torch.arange(value.shape[1], device=value.device)
    earlier = index[None, :] < index[:, None]
    mine, theirs = value[:, :, None], value[:, None, :]
    return (theirs > mine) | ((theirs == mine) & earlier)


def dpc_knn(
    tokens: Tensor, mask: Tensor, ratio: float, *, num_slots: int, neighbours: int = 3, merging: Merging = "masked"
) -> Clusters:
    """Groups tokens by density peaks over the k nearest neighbours (Du et al. 2016), without randomness.

    Ties go to the lower index; the released code breaks them with noise of 1e-6.

    Args:
        tokens: Tokens (B, N, D).
        mask: True at real tokens, (B, N) bool; every item has at least one.
        ratio: Clusters per token. "masked" makes ceil(real tokens * ratio) clusters of an item and leaves the other
            slots empty; "released" fills all slots.
        num_slots: Greatest number C of clusters.
        neighbours: Nearest neighbours k, counting the token itself.
        merging: See `HBIConfig.merging`.
    """
    distance = token_distances(tokens.detach().float())
    if merging == "released":
        largest = distance.amax((0, 1, 2)) + 1.0  # over the whole batch: neighbours in a batch can change a result
        has_padding = (~mask).any()
        distance = torch.where(mask[:, None, :], distance, largest)
        furthest = torch.where(has_padding, largest, distance.amax((1, 2)))
    else:
        real_pair = mask[:, None, :] & mask[:, :, None]
        furthest = torch.where(real_pair, distance, 0.0).amax((1, 2))
    density = _density(distance, mask, neighbours, merging)

    # Distance to the nearest token of higher density; the densest of all takes the largest distance there is.
    higher = _precedes(torch.where(mask, density, -1.0))
    to_higher = torch.where(higher, distance, furthest[:, None, None]).amin(-1)
    peak = torch.where(mask, density * to_higher, 0.0 if merging == "released" else -1.0)

    # Counting the tokens before each gives its rank without a sort and without a k that depends on the input.
    rank = _precedes(peak).sum(-1)
    if merging == "released":
        num_clusters = torch.full_like(rank[:, 0], num_slots)
        slot_of_centre = rank
        is_centre = rank < num_clusters[:, None]
    else:
        num_clusters = torch.ceil(mask.sum(-1) * ratio - 1e-6).clamp(1, num_slots).long()
        is_centre = rank < num_clusters[:, None]
        slot_of_centre = is_centre.long().cumsum(-1) - 1  # slots in the order of time

    slots = torch.arange(num_slots, device=tokens.device)
    centre = is_centre[:, None, :] & (slot_of_centre[:, None, :] == slots[:, None])
    cluster_mask = slots < num_clusters[:, None]
    from_centre = centre.to(distance.dtype) @ distance
    from_centre = torch.where(cluster_mask[:, :, None], from_centre, torch.finfo(distance.dtype).max)
    slot = torch.where(is_centre, slot_of_centre, from_centre.argmin(1))
    membership = slot[:, None, :] == slots[:, None]
    if merging == "released":
        return Clusters(slot, membership.to(tokens.dtype), torch.ones_like(cluster_mask))
    return Clusters(slot, (membership & mask[:, None, :]).to(tokens.dtype), cluster_mask)


def _density(distance: Tensor, mask: Tensor, neighbours: int, merging: Merging) -> Tensor:
    """Returns exp(-mean squared distance to the k nearest tokens, itself included): (B, N), 0 at padding."""
    if merging == "released":
        nearest = distance.topk(neighbours, dim=-1, largest=False).values
        return torch.exp(-(nearest**2).mean(-1)) * mask
    # k columns of infinite distance leave k to choose from in an item of any length.
    far = torch.finfo(distance.dtype).max
    padded = F.pad(torch.where(mask[:, None, :], distance, far), (0, neighbours), value=far)
    nearest = padded.topk(neighbours, dim=-1, largest=False).values
    real = nearest < far
    squares = torch.where(real, nearest, 0.0) ** 2
    return torch.exp(-squares.sum(-1) / real.sum(-1).clamp_min(1)) * mask


class MergedTokens(NamedTuple):
    """Result of merging N tokens into C clusters.

    Attributes:
        tokens: Merged tokens (B, C, D).
        mask: False at empty clusters, (B, C) bool.
        slots: Cluster of each token, (B, N) int64, -1 at padding.
        bias: Term added to the logits of attention to the tokens, (B, N) float32: their scores, -inf at padding.
    """

    tokens: Tensor
    mask: Tensor
    slots: Tensor
    bias: Tensor


def merge_tokens(
    tokens: Tensor,
    score: Tensor,
    mask: Tensor,
    *,
    num_slots: int,
    ratio: float,
    neighbours: int,
    merging: Merging = "masked",
) -> MergedTokens:
    """Computes the mean of each cluster, weighted by the exponentials of the scores.

    Args:
        tokens: Tokens (B, N, D).
        score: Scores (B, N) float32.
        mask: True at real tokens, (B, N) bool.
        num_slots: Greatest number C of clusters.
        ratio: Clusters per token, see `dpc_knn`.
        neighbours: Nearest neighbours from which density is measured.
        merging: See `HBIConfig.merging`.
    """
    clusters = dpc_knn(tokens, mask, ratio, num_slots=num_slots, neighbours=neighbours, merging=merging)
    bias = score = score.masked_fill(~mask, float("-inf"))
    if merging == "masked":  # the mean does not change, and exp cannot overflow
        score = score - score.amax(-1, keepdim=True)
    share = clusters.membership * score.exp()[:, None, :]
    share = share / (share.sum(-1, keepdim=True) + 1e-6)
    slots = clusters.slot.masked_fill(~mask, -1)
    return MergedTokens(share.to(tokens.dtype) @ tokens, clusters.mask, slots, bias)


class TokenMerge(nn.Module):
    """Step to the next level: at most N tokens become at most C = ceil(N * ratio) tokens that attend to those below.

    C follows from `max_tokens`, so that a graph's shapes do not depend on its input. The released merging makes as many
    clusters as the padded length asks for, so there texts are padded to `max_tokens` (see `HBI.encode_text`).
    """

    def __init__(
        self,
        *,
        width: int,
        max_tokens: int,
        ratio: float,
        heads: int,
        neighbours: int = 3,
        merging: Merging = "masked",
    ) -> None:
        super().__init__()
        self.num_slots = max(ceil(max_tokens * ratio), 1)
        self.ratio = ratio
        self.neighbours = neighbours
        self.merging: Merging = merging
        self.merge: Callable[..., MergedTokens] = merge_tokens  # an exporter puts an operator in its place
        self.convolution = nn.Conv1d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1)
        self.attention = MergeAttention(width=width, heads=heads)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Merges tokens (B, N, D) with mask (B, N) bool into tokens (B, C, D) with mask (B, C) bool.

        Returns:
            Merged tokens, their mask, and the slot of each token, (B, N) int64, -1 at padding.
        """
        normed, score = self.score_tokens(tokens, mask)
        merged = self.merge(
            normed,
            score,
            mask,
            num_slots=self.num_slots,
            ratio=self.ratio,
            neighbours=self.neighbours,
            merging=self.merging,
        )
        return self.attention(merged.tokens, normed, merged.bias), merged.mask, merged.slots

    def score_tokens(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Adds context from neighbouring tokens, and scores them: (B, N, D) -> (B, N, D), (B, N) float32."""
        if self.merging == "masked":
            tokens = tokens * mask[:, :, None].to(tokens.dtype)
        context = self.convolution(tokens.transpose(1, 2)).transpose(1, 2)
        normed: Tensor = self.norm(tokens + context)
        return normed, self.score(normed).squeeze(-1).float()


class MergeAttention(nn.Module):
    """Attention of merged tokens to the tokens they came from, biased by the scores of those tokens."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, merged: Tensor, tokens: Tensor, score: Tensor | None = None) -> Tensor:
        """Attends from merged tokens (B, C, D) to tokens (B, N, D), biased by score (B, N): (B, C, D)."""
        batch, num_merged, width = merged.shape
        # (B, N, D) -> (B, heads, N, D / heads)
        query = self.query(self.norm(merged)).reshape(batch, num_merged, self.heads, -1).transpose(1, 2)
        key, value = (
            part.reshape(batch, tokens.shape[1], self.heads, -1).transpose(1, 2)
            for part in self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        )
        logits = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
        if score is not None:
            logits = logits + score[:, None, None, :]
        attended = logits.softmax(-1).to(value.dtype) @ value
        return merged + self.project(attended.transpose(1, 2).reshape(batch, num_merged, width))
