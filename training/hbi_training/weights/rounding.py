"""Precision of weights and of computation: rounding weights as a bundle stores them, and where bfloat16 is native."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

ROUNDED_FROM = 1024  # elements: rounding smaller tensors saves little
Weights = Literal["float32", "float16", "int8"]
Module = TypeVar("Module", bound=nn.Module)


def channel_scale(weight: Tensor, others: tuple[int, ...]) -> Tensor:
    """Returns the scale of each channel, (N, 1, ...), 1/127 of its largest value.

    Args:
        weight: Weights (N, ...).
        others: Axes inside a channel.
    """
    return weight.abs().amax(others, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / 127


def rounded(model: Module, weights: Weights) -> Module:
    """Copies a model with its large weights rounded to float16, or to int8 times a scale for each channel.

    For float32, which needs no rounding, it returns the model itself.
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
    """Returns whether the device in use has instructions for bfloat16.

    Args:
        cpu: True checks the processor even if there is a GPU.
    """
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
