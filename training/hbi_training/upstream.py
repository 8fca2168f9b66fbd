"""The authors' released checkpoints: their tensor names in ours, and the sizes that their shapes imply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from hbi_infer.options import FrameSampling
from hbi_training.config import HBIConfig

_RENAMED = {
    "clip.logit_scale": "logit_scale",
    "clip.positional_embedding": "word_encoder.text.embeddings.position_embedding.weight",
    "clip.token_embedding.weight": "word_encoder.text.embeddings.token_embedding.weight",
    "clip.visual.class_embedding": "frame_encoder.vision.embeddings.class_embedding",
    "clip.visual.positional_embedding": "frame_encoder.vision.embeddings.position_embedding.weight",
    "clip.visual.conv1.weight": "frame_encoder.vision.embeddings.patch_embedding.weight",
    "frame_position_embeddings.weight": "temporal_transformer.position.weight",
}
# Stored the other way round: the released code multiplies x @ P.
_TRANSPOSED = {
    "clip.text_projection": "word_encoder.projection.weight",
    "clip.visual.proj": "frame_encoder.projection.weight",
}
_PREFIXES = (
    (r"clip\.ln_final\.", "word_encoder.text.final_layer_norm."),
    (r"clip\.visual\.ln_pre\.", "frame_encoder.vision.pre_layrnorm."),
    (r"clip\.visual\.ln_post\.", "frame_encoder.vision.post_layernorm."),
    (r"clip\.visual\.transformer\.resblocks\.(\d+)\.", r"frame_encoder.vision.encoder.layers.\1."),
    (r"clip\.transformer\.resblocks\.(\d+)\.", r"word_encoder.text.encoder.layers.\1."),
    (r"transformerClip\.resblocks\.(\d+)\.", r"temporal_transformer.encoder.layers.\1."),
    (r"text_weight_fc\.", "text_hierarchy.weights.entity.network."),
    (r"text_weight_fc0\.", "text_hierarchy.weights.action.network."),
    (r"text_weight_fc1\.", "text_hierarchy.weights.event.network."),
    (r"video_weight_fc\.", "video_hierarchy.weights.entity.network."),
    (r"video_weight_fc0\.", "video_hierarchy.weights.action.network."),
    (r"video_weight_fc1\.", "video_hierarchy.weights.event.network."),
    (r"t_(?:ctm|block)0\.", "text_hierarchy.merges.action."),
    (r"t_(?:ctm|block)1\.", "text_hierarchy.merges.event."),
    (r"v_(?:ctm|block)0\.", "video_hierarchy.merges.action."),
    (r"v_(?:ctm|block)1\.", "video_hierarchy.merges.event."),
)
_PARTS = (
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".conv.conv.", ".convolution."),
    (".norm1.", ".attention.norm."),
    (".attn.q.", ".attention.query."),
    (".attn.kv.", ".attention.key_value."),
    (".attn.proj.", ".attention.project."),
)


def convert_state_dict(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names; tensors that belong to no part of ours keep theirs.

    Fused query-key-value projections are split in three, and projections stored as `x @ P` are transposed.
    """
    ours: dict[str, Tensor] = {}
    for key, tensor in released.items():
        if key in _RENAMED:
            ours[_RENAMED[key]] = tensor
            continue
        if key in _TRANSPOSED:
            ours[_TRANSPOSED[key]] = tensor.T
            continue
        name = key
        for pattern, replacement in _PREFIXES:
            name, found = re.subn("^" + pattern, replacement, name)
            if found:
                break
        for theirs, mine in _PARTS:
            name = name.replace(theirs, mine)
        fused = re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name)
        if fused:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                ours[f"{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece
        else:
            ours[name] = tensor
    return ours


def released_config(
    released: Mapping[str, Tensor], *, max_words: int = 32, sampling: FrameSampling | None = None, **choices: Any
) -> HBIConfig:
    """The configuration under which our model computes what the released code computes with these weights.

    Sizes come from the tensors' shapes. A head is 64 channels wide in CLIP and in the temporal transformer.
    """
    vision_width, _, patch_size, _ = released["clip.visual.conv1.weight"].shape
    grid = round((len(released["clip.visual.positional_embedding"]) - 1) ** 0.5)
    vocabulary, text_width = released["clip.token_embedding.weight"].shape
    width = released["clip.text_projection"].shape[1]

    def layers(prefix: str) -> int:
        return len({m[1] for key in released if (m := re.match(rf"{re.escape(prefix)}\.resblocks\.(\d+)\.", key))})

    sampling = sampling or FrameSampling(image_size=patch_size * grid)
    clip = {
        "projection_dim": width,
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": layers("clip.transformer"),
            "num_attention_heads": max(text_width // 64, 1),
            "max_position_embeddings": len(released["clip.positional_embedding"]),
        },
        "vision_config": {
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_hidden_layers": layers("clip.visual.transformer"),
            "num_attention_heads": max(vision_width // 64, 1),
            "image_size": patch_size * grid,
            "patch_size": patch_size,
        },
    }
    settings = {
        "temporal_layers": layers("transformerClip"),
        "temporal_heads": max(width // 64, 1),
        "temporal_positions": len(released["frame_position_embeddings.weight"]),
        "temporal_layer_norm_eps": 1e-12,
        "merging": "released",
        "padded_partner": "zero",
        "level_rates": (1.0, 0.0, 0.0),
    }
    return HBIConfig.from_json(
        {"clip": clip, "max_words": max_words, "sampling": asdict(sampling), **settings, **choices}
    )
