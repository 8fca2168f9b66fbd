"""Random weights of EfficientNet-Lite2, and the network in PyTorch as its description stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

# blocks, kernel, stride, expansion, width, from the published description scaled to 1.1 and 1.2
STAGES = [
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
]
Weights = dict[str, npt.NDArray[np.float32]]


def convolutions() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name of a convolution -> its batch norm and the shape of its weights."""
    found = {"_conv_stem": ("_bn0", (32, 3, 3, 3))}
    number, width = 0, 32
    for blocks, kernel, _, expansion, after in STAGES:
        for _ in range(blocks):
            name, inner = f"_blocks.{number}", width * expansion
            if expansion > 1:
                found[f"{name}._expand_conv"] = (f"{name}._bn0", (inner, width, 1, 1))
            found[f"{name}._depthwise_conv"] = (f"{name}._bn1", (inner, 1, kernel, kernel))
            found[f"{name}._project_conv"] = (f"{name}._bn2", (after, inner, 1, 1))
            number, width = number + 1, after
    return found | {"_conv_head": ("_bn1", (1280, width, 1, 1))}


def random_weights(seed: int = 0) -> Weights:
    """Weights whose values neither die out nor explode on their way."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, (norm, shape) in convolutions().items():
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        for part, (low, high) in {
            "weight": (0.5, 1.5),
            "bias": (-0.2, 0.8),
            "running_mean": (-0.3, 0.3),
            "running_var": (0.5, 2.0),
        }.items():
            weights[f"{norm}.{part}"] = rng.uniform(low, high, shape[0]).astype(np.float32)
    weights["_fc.weight"] = rng.normal(0, 0.1, (1000, 1280)).astype(np.float32)
    weights["_fc.bias"] = rng.normal(0, 0.1, 1000).astype(np.float32)
    return weights


def logits_in_torch(weights: Weights, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits (N, 1000) of pictures (N, 260, 260, 3)."""
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}

    def layer(x: torch.Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        kernel, size = tensors[f"{name}.weight"], x.shape[-1]
        missing = max((-(-size // stride) - 1) * stride + kernel.shape[-1] - size, 0)
        x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
        x = F.conv2d(x, kernel, stride=stride, groups=groups)
        parts = (tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128
    x = F.relu6(layer(x, "_conv_stem", "_bn0", stride=2))
    number = 0
    for blocks, _, stage_stride, expansion, width in STAGES:
        for repeat in range(blocks):
            name, start, stride = f"_blocks.{number}", x, stage_stride if repeat == 0 else 1
            if expansion > 1:
                x = F.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
            x = F.relu6(layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, groups=x.shape[1]))
            x = layer(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + start if stride == 1 and start.shape[1] == width else x
            number += 1
    x = F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))
    made: npt.NDArray[np.float32] = F.linear(x, tensors["_fc.weight"], tensors["_fc.bias"]).numpy()
    return made
