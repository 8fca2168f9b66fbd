"""Reconstruction of a pair's tokens, which fuses what each side says alone with what both say together.

Tokens of one modality are biased, for they were made without knowledge of the other side, and so is the interaction
computed on them. The TPAMI version of HBI (arXiv 2412.20964) reconstructs them from a single-modal and a cross-modal
component. This is our own form of that, written from its description and not from its equations; the released code
has no reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hbi_training.model.clip_encoders import additive_mask, build_transformer
from hbi_training.model.token_interaction import Tokens


class Reconstruction(nn.Module):
    """A transformer over all tokens of a pair, and a gate that mixes its output into each token.

    For a single-modal token x and its cross-modal component c, the reconstructed token is x + g * (c - x) with a gate
    g in (-1, 1) for each channel, which is 0 at first: the reconstruction starts as the identity.

    Args:
        width: Width D of the tokens.
        levels: Names of the levels.
        layers: Layers of the transformer.
        heads: Heads of its attention.
    """

    def __init__(self, *, width: int, levels: Sequence[str], layers: int, heads: int) -> None:
        super().__init__()
        self.kinds = nn.ParameterDict(
            {
                f"{side}_{level}": nn.Parameter(0.02 * torch.randn(width))
                for side in ("text", "video")
                for level in levels
            }
        )
        self.norm_in = nn.LayerNorm(width)
        self.transformer = build_transformer(width=width, layers=layers, heads=heads)
        self.norm_out = nn.LayerNorm(width)
        self.gate = nn.Linear(2 * width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self, text: Mapping[str, Tokens], video: Mapping[str, Tokens]
    ) -> tuple[dict[str, Tokens], dict[str, Tokens]]:
        """Reconstructs B matched pairs.

        Args:
            text: Tokens (B, T, D) of each level; an empty mapping reconstructs the videos alone, for captioning.
            video: Tokens (B, V, D) of each level.

        Returns:
            Text and video with reconstructed tokens; weights, masks and slots stay.
        """
        parts = {("text", level): tokens for level, tokens in text.items()}
        parts |= {("video", level): tokens for level, tokens in video.items()}
        single = torch.cat([part.tokens for part in parts.values()], dim=1)
        mask = torch.cat([part.mask for part in parts.values()], dim=1)
        kinds = torch.cat([self._kind(side, level, part) for (side, level), part in parts.items()])
        hidden = self.norm_in(single) + kinds
        visible = additive_mask(mask[:, None, None, :], hidden.dtype)
        hidden = self.transformer(inputs_embeds=hidden, attention_mask=visible).last_hidden_state
        cross = self.norm_out(hidden)
        gate = self.gate(torch.cat([single, cross], dim=-1)).tanh()
        fused = (single + gate * (cross - single)).split([part.tokens.shape[1] for part in parts.values()], dim=1)
        sides: dict[str, dict[str, Tokens]] = {"text": {}, "video": {}}
        for ((side, level), part), tokens in zip(parts.items(), fused, strict=True):
            sides[side][level] = part._replace(tokens=tokens)
        return sides["text"], sides["video"]

    def _kind(self, side: str, level: str, part: Tokens) -> Tensor:
        """Returns the embedding (N, D) that marks the tokens of a side and level."""
        return self.kinds[f"{side}_{level}"].expand(part.tokens.shape[1], -1)
