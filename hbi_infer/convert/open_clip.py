"""CLIP as OpenCLIP saves it: open_clip_config.json and open_clip_model.safetensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from hbi_infer.convert.clip import heads_of, vocabulary_of
from hbi_infer.convert.dual_encoder import DualEncoder
from hbi_infer.convert.onnx_builder import Activation, Attention, Linear, patch_layer
from hbi_infer.convert.preprocessing import CLIP_PICTURES, Preprocessing, read_preprocessing
from hbi_infer.convert.settings import Settings
from hbi_infer.convert.towers import Layer, TextTower, VisionTower
from hbi_infer.convert.weights import Weights, read_weights
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json, clip_tokenizer_json_from_folder

CONFIG = "open_clip_config.json"
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin",
)
"""Files of weights, the best first."""
EPSILON = 1e-5

# Key -> the value that is done here, or None where its value is read below, or serves training alone.
_MODEL_KEYS: dict[str, Any] = {
    "embed_dim": None,
    "vision_cfg": None,
    "text_cfg": None,
    "quick_gelu": None,
    "custom_text": None,
    "init_logit_scale": None,
    "nonscalar_logit_scale": None,
    "init_logit_bias": None,
}
_TOWER_KEYS: dict[str, Any] = {
    "layers": None,
    "width": None,
    "mlp_ratio": None,
    "norm_kwargs": None,
    "act_kwargs": {},
    "ls_init_value": 0,
    "final_ln_after_pool": False,
    "output_tokens": False,
    "block_type": "default",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_VISION_KEYS: dict[str, Any] = {
    **_TOWER_KEYS,
    "head_width": None,
    "patch_size": None,
    "image_size": None,
    "patch_dropout": None,
    "attentional_pool": False,
    "attn_pooler_queries": None,
    "attn_pooler_heads": None,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
}
_TEXT_KEYS: dict[str, Any] = {
    **_TOWER_KEYS,
    "heads": None,
    "context_length": None,
    "vocab_size": None,
    "hf_tokenizer_name": None,
    "tokenizer_mode": "clean",
    "tokenizer_kwargs": {},
    "embed_cls": False,
    "pad_id": None,
    "eos_id": None,
    "no_causal_mask": False,
    "pool_type": None,
    "proj_bias": False,
    "proj_type": "linear",
}


def read_open_clip(folder: Path | str, config: Settings) -> DualEncoder:
    """Reads a CLIP in OpenCLIP's own layout.

    Args:
        folder: Folder of the model.
        config: Content of its open_clip_config.json.

    Raises:
        BundleError: A file is missing or damaged, does not fit the others, or asks for what is not done here.
        InputError: The tokenizer is not CLIP's kind, or a tokenizer of another name is missing.
    """
    folder = Path(folder)
    check_open_clip(config)
    model = config.section("model_cfg")
    vision_config, text_config = model.section("vision_cfg"), model.section("text_cfg")
    tokenizer_json = _tokenizer(folder, text_config)
    tokenizer = Tokenizer.from_json(tokenizer_json)
    size = vision_config.whole("image_size", 224)
    preprocessing = read_preprocessing(folder, size, CLIP_PICTURES)
    weights, width = read_weights(folder, WEIGHT_FILES), model.whole("embed_dim")
    activation: Activation = "quick_gelu" if model.choice("quick_gelu", False, (False, True)) else "gelu"
    return DualEncoder(
        vision=_vision(vision_config, weights, width, activation, preprocessing),
        text=_text(text_config, weights, width, activation, tokenizer),
        preprocessing=preprocessing,
        tokenizer_json=tokenizer_json,
        logit_scale=math.exp(weights.number("logit_scale")),
        logit_bias=weights.number("logit_bias") if "logit_bias" in weights else None,
    )


def check_open_clip(config: Settings) -> None:
    """Refuses an open_clip_config.json with settings that are not known here, for they may change what is computed.

    Raises:
        BundleError: There is such a setting, or a value that is not done here.
    """
    model = config.section("model_cfg")
    model.refuse(_MODEL_KEYS)
    model.section("vision_cfg").refuse(_VISION_KEYS)
    model.section("text_cfg").refuse(_TEXT_KEYS)


def _tokenizer(folder: Path, config: Settings) -> str:
    """Returns the JSON of the tokenizer in the folder; without one OpenCLIP takes CLIP's own."""
    is_there = any((folder / name).is_file() for name in ("tokenizer.json", "merges.txt"))
    if is_there or "hf_tokenizer_name" in config:
        return clip_tokenizer_json_from_folder(folder)
    return clip_tokenizer_json()


def _vision(
    config: Settings, weights: Weights, out: int, activation: Activation, pictures: Preprocessing
) -> VisionTower:
    width, size, patch = config.whole("width", 768), config.whole("image_size", 224), config.whole("patch_size", 16)
    head_width = config.whole("head_width", 64)
    if width % head_width:
        raise config.unsupported("head_width", f"a divisor of {width}", head_width)
    kernel = weights.take("visual.conv1.weight", width, 3, patch, patch)
    epsilon = _epsilon(config)
    return VisionTower(
        size=size,
        patch=patch,
        embedding=patch_layer(kernel, None, pictures.mean, pictures.deviation),
        class_token=weights.take("visual.class_embedding", width),
        positions=weights.take("visual.positional_embedding", (size // patch) ** 2 + 1, width),
        norm_before=weights.norm("visual.ln_pre", width, epsilon),
        layers=_layers(config, weights, "visual.transformer", width, width // head_width, activation),
        norm=weights.norm("visual.ln_post", width, epsilon),
        head=None,
        projection=Linear(weights.take("visual.proj", width, out)),
    )


def _text(config: Settings, weights: Weights, out: int, activation: Activation, tokenizer: Tokenizer) -> TextTower:
    prefix = "text." if "text.positional_embedding" in weights else ""
    width = config.whole("width", 512)
    vocabulary = vocabulary_of(config, "vocab_size", 49408, tokenizer)
    heads = heads_of(config, "heads", 8, width)
    return TextTower(
        embedding=weights.take(f"{prefix}token_embedding.weight", vocabulary, width),
        positions=weights.take(f"{prefix}positional_embedding", config.whole("context_length", 77), width),
        layers=_layers(config, weights, f"{prefix}transformer", width, heads, activation),
        norm=weights.norm(f"{prefix}ln_final", width, _epsilon(config)),
        projection=Linear(weights.take(f"{prefix}text_projection", width, out)),
        pooled=_pooled(config, tokenizer),
    )


def _pooled(config: Settings, tokenizer: Tokenizer) -> int | Literal["highest"]:
    """Returns the token that is pooled, which every text of the tokenizer must have."""
    if config.choice("pool_type", "argmax", ("argmax", "eos")) == "argmax":
        return "highest"
    return int(config.choice("eos_id", 2, (tokenizer.eot_id,)))


def _epsilon(config: Settings) -> float:
    norm = config.section("norm_kwargs")
    norm.refuse({"eps": None})
    return norm.number("eps", EPSILON, least=0, most=1)


def _layers(
    config: Settings, weights: Weights, prefix: str, width: int, heads: int, activation: Activation
) -> tuple[Layer, ...]:
    wide, epsilon = int(width * config.number("mlp_ratio", 4.0, least=0.01, most=100)), _epsilon(config)
    layers = []
    for number in range(config.whole("layers", 12)):
        name = f"{prefix}.resblocks.{number}"
        query, key, value = weights.joined_linears(f"{name}.attn.in_proj_weight", f"{name}.attn.in_proj_bias", width, 3)
        output = weights.linear(f"{name}.attn.out_proj", width, width)
        layers.append(
            Layer(
                attention_norm=weights.norm(f"{name}.ln_1", width, epsilon),
                attention=Attention(query, key, value, output, heads),
                norm=weights.norm(f"{name}.ln_2", width, epsilon),
                widen=weights.linear(f"{name}.mlp.c_fc", width, wide),
                activation=activation,
                narrow=weights.linear(f"{name}.mlp.c_proj", wide, width),
            )
        )
    return tuple(layers)
