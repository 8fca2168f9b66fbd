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
    """Which token belongs to which cluster.

    Attributes:
        slot: (B, N) int64, the cluster of each token; arbitrary at padding.
        membership: (B, C, N) float, 1 where token n belongs to cluster c; 0 at padding in the "masked" mode.
        mask: (B, C) bool, False where a cluster is empty because the item has too few tokens.
    """

    slot: Tensor
    membership: Tensor
    mask: Tensor


def token_distances(tokens: Tensor) -> Tensor:
    """Euclidean distances divided by sqrt(D): (B, N, D) -> (B, N, N), symmetric to the bit, 0 on the diagonal."""
    # A matrix product, because cdist with dynamic axes exports badly.
    tokens = tokens / tokens.shape[-1] ** 0.5
    squares = (tokens * tokens).sum(-1)
    squared = squares[:, :, None] + squares[:, None, :] - 2.0 * tokens @ tokens.transpose(1, 2)
    squared = 0.5 * (squared + squared.transpose(1, 2))
    off_diagonal = 1.0 - torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    return squared.clamp_min(0.0).sqrt() * off_diagonal


def _precedes(value: Tensor) -> Tensor:
    """(B, N) -> (B, N, N) bool: [b, i, j] is True where j comes before i, larger value first, ties by index."""
    index = torch.arange(value.shape[1], device=value.device)
    earlier = index[None, :] < index[:, None]
    mine, theirs = value[:, :, None], value[:, None, :]
    return (theirs > mine) | ((theirs == mine) & earlier)


def dpc_knn(
    tokens: Tensor, mask: Tensor, ratio: float, *, num_slots: int, neighbours: int = 3, merging: Merging = "masked"
) -> Clusters:
    """Groups tokens by density peaks over the k nearest neighbours (Du et al. 2016), without randomness.

    Where the released code breaks ties with noise of 1e-6, ties go to the lower index here.

    Args:
        tokens: (B, N, D).
        mask: (B, N) bool, True at real tokens; every item has at least one.
        ratio: Clusters as a part of tokens. "masked" makes ceil(real tokens * ratio) clusters of an item and leaves the
            other slots empty; "released" fills all slots.
        num_slots: C, the most clusters.
        neighbours: k, the token itself among them.
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

    # Counting who comes before gives the rank with no sort and no k that depends on the input.
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
    """(B, N): exp(-mean squared distance to the k nearest tokens, itself among them); 0 at padding."""
    if merging == "released":
        nearest = distance.topk(neighbours, dim=-1, largest=False).values
        return torch.exp(-(nearest**2).mean(-1)) * mask
    # k columns of infinite distance, so that there are k to choose from however short the item is.
    far = torch.finfo(distance.dtype).max
    padded = F.pad(torch.where(mask[:, None, :], distance, far), (0, neighbours), value=far)
    nearest = padded.topk(neighbours, dim=-1, largest=False).values
    real = nearest < far
    squares = torch.where(real, nearest, 0.0) ** 2
    return torch.exp(-squares.sum(-1) / real.sum(-1).clamp_min(1)) * mask


class MergedTokens(NamedTuple):
    """Tokens, merged.

    Attributes:
        tokens: (B, C, D).
        mask: (B, C) bool, False where there are fewer clusters.
        slots: (B, N) int64, the cluster of each token, -1 at padding.
        bias: (B, N) float32, what attention to the tokens adds to its logits: their scores, -inf at padding.
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
    """The mean of each cluster, weighted by the exponentials of the scores.

    Args:
        tokens: (B, N, D).
        score: (B, N) float32.
        mask: (B, N) bool, True at real tokens.
        num_slots: C; it, the ratio, the neighbours and the merging are those of `dpc_knn`.
        ratio: Clusters as a part of tokens.
        neighbours: Among which density is measured.
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
    """One step up: at most N tokens become at most C = ceil(N * ratio) tokens that attend to those below.

    C is fixed by the most tokens there can be, so that a graph's shapes do not hang on its input. The released merging
    has as many clusters as the padded length asks for: there, texts must be padded to `max_tokens`.
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
        """(B, N, D) and (B, N) bool -> (B, C, D), (B, C) bool, and each token's slot (B, N) int64, -1 at padding."""
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
        """Context from the neighbouring tokens and a score: (B, N, D) -> (B, N, D), (B, N) float32."""
        if self.merging == "masked":
            tokens = tokens * mask[:, :, None].to(tokens.dtype)
        context = self.convolution(tokens.transpose(1, 2)).transpose(1, 2)
        normed: Tensor = self.norm(tokens + context)
        return normed, self.score(normed).squeeze(-1).float()


class MergeAttention(nn.Module):
    """Merged tokens attend to the tokens they came from; the score of a token is a bias on its attention."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, merged: Tensor, tokens: Tensor, score: Tensor | None = None) -> Tensor:
        """(B, C, D), (B, N, D), (B, N) -> (B, C, D)."""
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
