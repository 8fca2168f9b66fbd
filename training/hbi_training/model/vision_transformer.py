"""The layers of CLIP's vision transformer, computed for as little as its class token needs.

Nothing but the class token leaves the last layer, so that layer is computed for it alone. On request similar patches
are merged on the way (Bolya et al. 2023, "Token merging: your ViT but faster"): in each layer, those whose keys are
nearest to another one's become one with it. A merged patch then counts in attention as what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Patches(NamedTuple):
    """The class token and the patches of N pictures, that token first.

    Attributes:
        hidden: Values (N, P, W).
        sizes: Number of patches that each was merged from, (N, P, 1); None for one each.
    """

    hidden: Tensor
    sizes: Tensor | None


def class_token(layers: Iterable[nn.Module], hidden: Tensor, *, merged: int = 0) -> Tensor:
    """Computes the class token (N, W) behind the layers, from it and the patches before them, (N, P, W).

    Args:
        layers: Layers of `transformers.CLIPModel`.
        hidden: The class token and the patches.
        merged: Number of patches that are merged away in each layer but the last; fewer where few are left.
    """
    *others, last = (cast("Any", layer) for layer in layers)
    patches = Patches(hidden, None)
    for layer in others:
        patches = _layer(layer, patches, merged) if merged else Patches(layer(patches.hidden, None), None)
    normed = last.layer_norm1(patches.hidden)
    attended = patches.hidden[:, :1] + _attention(last.self_attn, normed[:, :1], normed, patches.sizes)[0]
    return (attended + last.mlp(last.layer_norm2(attended)))[:, 0]


def _layer(layer: Any, patches: Patches, merged: int) -> Patches:
    """Computes a layer, in whose middle patches are merged."""
    normed = layer.layer_norm1(patches.hidden)
    mixed, keys = _attention(layer.self_attn, normed, normed, patches.sizes)
    made = merge_patches(Patches(patches.hidden + mixed, patches.sizes), keys, merged)
    return made._replace(hidden=made.hidden + layer.mlp(layer.layer_norm2(made.hidden)))


def _attention(attention: Any, asking: Tensor, asked: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attends from some tokens (N, Q, W) to all (N, P, W); also returns the heads' mean keys (N, P, W / heads)."""
    query, key, value = (
        # (N, P, W) -> (N, heads, P, W / heads)
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in (attention.q_proj(asking), attention.k_proj(asked), attention.v_proj(asked))
    )
    scores = (query @ key.mT) * attention.scale
    if sizes is not None:
        scores = scores + sizes.log()[:, None, None, :, 0]
    mixed = scores.float().softmax(-1).to(value.dtype) @ value
    return attention.out_proj(mixed.transpose(1, 2).flatten(2)), key.mean(1)


def merge_patches(patches: Patches, keys: Tensor, merged: int) -> Patches:
    """Merges the patches that are most like another one; the class token stays.

    Every second patch looks for the nearest among the others, by the cosine of their keys. The pairs that are nearest
    become one each, the mean of all that it was made of.

    Args:
        patches: The class token and the patches, (N, P, W).
        keys: Keys (N, P, K).
        merged: Number of patches by which there are fewer; at most half of them.
    """
    hidden, sizes = patches
    if sizes is None:
        sizes = torch.ones_like(hidden[..., :1])
    merged = min(merged, (hidden.shape[1] - 1) // 2)
    if not merged:
        return Patches(hidden, sizes)
    keys = F.normalize(keys[:, 1:].float(), dim=-1)
    nearness, nearest = (keys[:, ::2] @ keys[:, 1::2].mT).max(-1)
    number = nearness.shape[1]
    order = nearness.topk(number, dim=-1).indices
    gone, kept = order[:, :merged], order[:, merged:]
    # What is summed by size becomes a mean by division.
    summed = torch.cat([hidden * sizes, sizes], dim=-1)
    looking, found = summed[:, 1::2], summed[:, 2::2]
    place = torch.arange(found.shape[1], device=found.device)
    goes_to = (nearest.gather(1, gone)[:, :, None] == place).to(summed.dtype)
    found = found + goes_to.mT @ _rows(looking, gone)
    summed = torch.cat([summed[:, :1], _rows(looking, kept), found], dim=1)
    return Patches(summed[..., :-1] / summed[..., -1:], summed[..., -1:])


def _rows(tokens: Tensor, rows: Tensor) -> Tensor:
    """Picks rows (N, R) int64 of tokens (N, P, W): (N, R, W)."""
    return tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[-1]))
