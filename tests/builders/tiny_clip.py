"""A tiny random CLIP with the whole vocabulary, in the folder of files that transformers writes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from hbi_infer.model.tokenizer import clip_tokenizer_json
from tests.builders.tiny_training import TOWER


def write_tiny_clip(folder: Path) -> Path:
    """Write the model; the same files in every run."""
    torch.manual_seed(0)
    config = CLIPConfig(
        projection_dim=16,
        text_config={**TOWER, "max_position_embeddings": 24, "bos_token_id": 49406, "eos_token_id": 49407},
        vision_config={**TOWER, "image_size": 32, "patch_size": 16},
    )
    CLIPModel(config).eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(clip_tokenizer_json(), encoding="utf-8")
    return folder
