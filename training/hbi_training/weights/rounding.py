"""Precision of weights and of computation: rounding weights as a bundle stores them, and where bfloat16 is native."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

ROUNDED_FROM = 1024  # elements; small tensors are not worth it
Weights = Literal["float32", "float16", "int8"]
Module = TypeVar("Module", bound=nn.Module)


def channel_scale(weight: Tensor, others: tuple[int, ...]) -> Tensor:
    """What the largest value of each channel is 127 times of; `others` are the axes inside a channel."""
    return weight.abs().amax(others, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / 127


def rounded(model: Module, weights: Weights) -> Module:
    """A copy whose large weights take fewer bits: float16, or whole numbers times a scale for each channel.

    In float32 there is nothing to round, and it is the model itself.
    """
    if weights == "float32":
        return model
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() < ROUNDED_FROM:
                continue
            if weights == "float16":
                parameter.copy_(parameter.half().float())
            elif weights == "int8" and parameter.ndim > 1:
                scale = channel_scale(parameter, tuple(range(1, parameter.ndim)))
                parameter.copy_((parameter / scale).round() * scale)
    return model


def computes_in_bfloat16(*, cpu: bool) -> bool:
    """Returns whether the device that is used has instructions for bfloat16.

    Args:
        cpu: True looks at the processor even where there is a GPU.
    """
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
