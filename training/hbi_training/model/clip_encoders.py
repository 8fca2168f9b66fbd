"""CLIP's two encoders from `transformers`: one feature per frame, one feature per word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder
from transformers.utils import logging as transformers_logging

from hbi_infer.convert.preprocessing import IMAGE_MEAN, IMAGE_STD
from hbi_infer.errors import TrainingError
from hbi_training.model.clip_preprocessing import clip_preprocessing
from hbi_training.model.config import refuse_unknown
from hbi_training.model.vision_transformer import class_token


def build_clip(config: Mapping[str, Any], *, vision_stem: str = "patch") -> CLIPModel:
    """Builds a CLIP model with random weights.

    Args:
        config: Arguments of `transformers.CLIPConfig`.
        vision_stem: "patch", "convolution" or "residual", see `HBIConfig.vision_stem`.
    """
    # Patches and words are short sequences: on them plain attention is faster than the fused kernels of a CPU.
    clip = CLIPModel._from_config(CLIPConfig(**config), attn_implementation="eager")
    if vision_stem != "patch":
        vision = clip.config.vision_config
        clip.vision_model.embeddings.patch_embedding = ConvolutionStem(
            width=vision.hidden_size, patch_size=vision.patch_size, residual=vision_stem == "residual"
        )
    return clip


def build_transformer(*, width: int, layers: int, heads: int, layer_norm_eps: float = 1e-5) -> CLIPEncoder:
    """Builds CLIP's pre-norm transformer layers with random weights, for tokens of another kind."""
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        layer_norm_eps=layer_norm_eps,
    )
    config._attn_implementation = "eager"
    return CLIPEncoder(config)  # type: ignore[arg-type]  # annotated for the joint configuration


def refuse_unknown_sizes(config: Mapping[str, Any]) -> None:
    """Refuses unknown keys of a CLIP configuration, which `transformers` accepts silently.

    Raises:
        TrainingError: A key is unknown; the message names the nearest known one.
    """
    refuse_unknown(config, CLIPConfig().to_dict().keys(), "the model's clip")
    for part, known in (("text_config", CLIPTextConfig()), ("vision_config", CLIPVisionConfig())):
        refuse_unknown(config.get(part, {}), known.to_dict().keys(), f"the {part} of the model's clip")


def load_clip(source: str) -> CLIPModel:
    """Loads a trained CLIP model in float32 from a local folder or from the hub.

    Raises:
        TrainingError: There is no such model, it is not a CLIP, or it makes its pictures in an unsupported way.
    """
    try:
        with _quiet():
            loaded: Any = CLIPModel.from_pretrained(
                source,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        clip: CLIPModel = loaded[0]
        # transformers fills weights that it did not find with random numbers.
        drawn = sorted([*loaded[1]["missing_keys"], *(name for name, *_ in loaded[1]["mismatched_keys"])])
        problem = f"it is no CLIP, or not a whole one: it has no fitting {drawn[0]}" if drawn else ""
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = str(error).splitlines()[0]
    if problem:
        raise TrainingError(
            f"cannot load the CLIP model '{source}': {problem}; expected a local folder that transformers saved (with "
            "safetensors weights), or a name on the hub such as openai/clip-vit-base-patch32"
        )
    clip_preprocessing(source, clip.config.to_dict()["vision_config"]["image_size"])
    return clip


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the table that `transformers` prints of weights that do not fit; our error says it in one line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


class ResidualBlock(nn.Module):
    """Two convolutions of 3 x 3, whose result is added to what they read: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(1, channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns pictures (B, C, H, W) with what the convolutions add: (B, C, H, W)."""
        added: Tensor = self.layers(pixels)
        return pixels + added


class ConvolutionStem(nn.Sequential):
    """Convolutions in place of one patch embedding: one of 4 x 4 patches, then some of 3 x 3 that halve the picture.

    Args:
        width: Channels of the result.
        patch_size: Height and width in pixels of a patch of the result: 8, 16 or 32.
        residual: Whether a residual block comes before each halving.
    """

    def __init__(self, *, width: int, patch_size: int, residual: bool = False) -> None:
        num_halvings = patch_size.bit_length() - 3
        if patch_size != 4 * 2**num_halvings or num_halvings < 1:
            raise TrainingError(f"a convolution stem needs a patch size of 8, 16 or 32, not {patch_size}")
        channels = [min(width // 4 * 2**i, width) for i in range(num_halvings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, stride=4)]
        for before, after in pairwise(channels):
            layers += [ResidualBlock(before)] if residual else []
            layers += [nn.GroupNorm(1, before), nn.ReLU(), nn.Conv2d(before, after, 3, stride=2, padding=1)]
        last = channels[-1]
        super().__init__(*layers, nn.GroupNorm(1, last), nn.ReLU(), nn.Conv2d(last, width, 1))

    @property
    def weight(self) -> Tensor:
        """Weight (C, 3, 4, 4) of the first layer, from which `transformers` reads the dtype of the pixels."""
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        return first.weight


class SeenFrames(NamedTuple):
    """Results of the frame encoder for N frames.

    Attributes:
        features: Projected class tokens (N, D).
        patches: Patches after the transformer, (N, P, W).
        embedded: Patches before it, (N, P, W).
    """

    features: Tensor
    patches: Tensor
    embedded: Tensor


class FrameEncoder(nn.Module):
    """CLIP's image encoder; it sees each frame by itself.

    Attributes:
        merged: Number of patches that are merged away in each layer; see `class_token`.
    """

    pixel_scale: Tensor
    pixel_offset: Tensor

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.merged = 0
        self.vision = clip.vision_model
        self.projection = clip.visual_projection
        scale = 1.0 / (255.0 * torch.tensor(IMAGE_STD))
        self.register_buffer("pixel_scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer(
            "pixel_offset", -(torch.tensor(IMAGE_MEAN) / torch.tensor(IMAGE_STD)).view(3, 1, 1), persistent=False
        )

    def normalise(self, frames: Tensor) -> Tensor:
        """Normalises frames by CLIP's mean and deviation: (N, H, W, 3) uint8 -> (N, 3, H, W) float."""
        pixels = frames.permute(0, 3, 1, 2).to(self.pixel_scale.dtype)
        return pixels * self.pixel_scale + self.pixel_offset

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the projected class token (N, D) of normalised pixels (N, 3, H, W)."""
        hidden = self.vision.pre_layrnorm(self.vision.embeddings(pixels))
        token = class_token(self.vision.encoder.layers, hidden, merged=self.merged)
        return self.projection(self.vision.post_layernorm(token))

    def see(self, pixels: Tensor) -> SeenFrames:
        """Returns the class token and the patches of normalised pixels (N, 3, H, W)."""
        embedded = self.vision.embeddings(pixels)
        hidden = self.vision.encoder(
            inputs_embeds=self.vision.pre_layrnorm(embedded), attention_mask=None
        ).last_hidden_state
        features = self.projection(self.vision.post_layernorm(hidden[:, 0]))
        return SeenFrames(features, hidden[:, 1:], embedded[:, 1:])


class WordEncoder(nn.Module):
    """CLIP's text encoder, projected at every token.

    Args:
        clip: The model that it is taken from.
        window: Number of words before it that a word sees in each layer; None for all, as CLIP has it.
    """

    def __init__(self, clip: CLIPModel, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.text = clip.text_model
        self.projection = clip.text_projection

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Returns a feature (B, T, D) per token from ids (B, T) int64 and mask (B, T) bool."""
        hidden = self.text.embeddings(input_ids=token_ids)
        position = torch.arange(token_ids.shape[1], device=token_ids.device)
        causal = position[None, :] <= position[:, None]
        if self.window is not None:
            causal = causal & (position[:, None] - position[None, :] <= self.window)
        visible = causal[None, None] & token_mask[:, None, None, :]
        hidden = self.text.encoder(
            inputs_embeds=hidden, attention_mask=additive_mask(visible, hidden.dtype)
        ).last_hidden_state
        return self.projection(self.text.final_layer_norm(hidden))


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the term that hides attention logits, in the shape of `visible` such as (B, 1, T, T) bool.

    It is 0 where visible and the dtype's lowest number elsewhere.
    """
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)
