"""Joining the parts of a batch that lie on several devices."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from hbi_training.model.token_interaction import Tokens


class _Gather(torch.autograd.Function):
    """Forward, joins the rows of all devices; backward, sums all devices' gradients of this device's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        torch.distributed.all_reduce(gradient)
        own = torch.distributed.get_rank() * ctx.rows
        return gradient[own : own + ctx.rows]


def gather(tensor: Tensor) -> Tensor:
    """Joins rows (B, ...) of all devices, in the order of ranks; the gradient returns to each device's own rows."""
    if not torch.distributed.is_initialized():
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def gather_levels(levels: dict[str, Tokens]) -> dict[str, Tokens]:
    """Joins tokens (B, N, D), weights and masks of all devices, padded to the longest text of any of them."""
    if not torch.distributed.is_initialized():
        return levels
    return {name: Tokens(*(gather(pad_tokens(part)) for part in level[:3])) for name, level in levels.items()}


def pad_tokens(part: Tensor) -> Tensor:
    """Pads axis 1 of (B, N, ...) with zeros to the longest of all devices: weight 0, mask False."""
    longest = torch.tensor(part.shape[1], device=part.device)
    torch.distributed.all_reduce(longest, op=torch.distributed.ReduceOp.MAX)
    missing = int(longest) - part.shape[1]
    if not missing:
        return part
    return torch.cat([part, part.new_zeros(len(part), missing, *part.shape[2:])], dim=1)
