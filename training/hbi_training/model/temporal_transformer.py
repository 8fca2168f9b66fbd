"""The transformer over frames, or words, which adds to each one's feature what comes before and after it."""

from __future__ import annotations

from torch import Tensor, nn

from hbi_training.model.clip_encoders import additive_mask, build_transformer


class TemporalTransformer(nn.Module):
    """Pre-norm transformer layers over F frames, with learned positions and a skip around the whole.

    Args:
        width: D, the width of the features.
        layers: Number of layers.
        heads: Number of heads.
        max_positions: Rows of the table of positions.
        layer_norm_eps: Epsilon of the layer norms.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        heads: int,
        max_positions: int,
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.encoder = build_transformer(width=width, layers=layers, heads=heads, layer_norm_eps=layer_norm_eps)
        self.position = nn.Embedding(max_positions, width)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, frame_features: Tensor, frame_mask: Tensor) -> Tensor:
        """Adds context to features (B, F, D) with mask (B, F) bool: (B, F, D); the skip leaves out positions."""
        position = self.position.weight[: frame_features.shape[1]]
        mask = additive_mask(frame_mask[:, None, None, :], frame_features.dtype)
        hidden = self.encoder(inputs_embeds=frame_features + position, attention_mask=mask).last_hidden_state
        return hidden + frame_features
