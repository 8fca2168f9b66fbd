"""Layers that see each frame together with its neighbours in time, and nothing beyond them.

What moves shows in the difference of neighbouring frames. A layer reads them side by side, so that before and after are
different inputs to it; attention would have to learn from positions which frame is which.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NeighbourMixer(nn.Module):
    """Residual two-layer networks on each frame and its neighbours; neighbours that are not there are zeros.

    Args:
        width: D, the width of the features.
        layers: Number of layers; each one sees further by a window.
        window: Number of frames before it, and after it, that a frame sees in each layer.
    """

    def __init__(self, *, width: int, layers: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear((2 * window + 1) * width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )

    def forward(self, frame_features: Tensor, frame_mask: Tensor) -> Tensor:
        """Adds what the neighbours tell to features (B, F, D) with mask (B, F) bool: (B, F, D)."""
        number, real = frame_features.shape[1], frame_mask[:, :, None].to(frame_features.dtype)
        hidden = frame_features
        for norm, network in zip(self.norms, self.networks, strict=True):
            padded = F.pad(norm(hidden) * real, (0, 0, self.window, self.window))
            neighbours = [padded[:, start : start + number] for start in range(2 * self.window + 1)]
            hidden = hidden + network(torch.cat(neighbours, dim=-1))
        return hidden
