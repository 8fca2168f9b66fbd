"""Small models with random weights in the layouts that others save them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from hbi_infer.model.tokenizer import clip_tokenizer_json

TINY_CLIP: dict[str, Any] = {
    "projection_dim": 24,
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    },
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    },
}


def unsettled(model: nn.Module) -> nn.Module:
    """The model with noise in its norms and biases, which are ones and zeros before any training."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def tiny_clip(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> CLIPModel:
    torch.manual_seed(0)
    sizes = {
        **TINY_CLIP,
        "text_config": {**TINY_CLIP["text_config"], **(text or {})},
        "vision_config": {**TINY_CLIP["vision_config"], **(vision or {})},
    }
    return unsettled(CLIPModel(CLIPConfig(**sizes)).eval())  # type: ignore[return-value]


def save(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """Saves a model as `transformers` does, with CLIP's tokenizer."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(clip_tokenizer_json())
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def edited_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
