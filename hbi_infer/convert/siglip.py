"""SigLIP, and SigLIP 2 of fixed resolution, as `transformers` saves them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hbi_infer.convert.clip import (
    ACTIVATIONS,
    WEIGHT_FILES,
    Usual,
    heads_of,
    read_layers,
    vocabulary_of,
    width_and_epsilon,
)
from hbi_infer.convert.dual_encoder import DualEncoder
from hbi_infer.convert.onnx_builder import Attention, patch_layer
from hbi_infer.convert.preprocessing import SIGLIP_PICTURES, Preprocessing, read_preprocessing
from hbi_infer.convert.settings import Settings
from hbi_infer.convert.towers import PoolingHead, TextTower, VisionTower
from hbi_infer.convert.weights import Weights, read_weights
from hbi_infer.model.sentence_piece import siglip_tokenizer_json_from_folder
from hbi_infer.model.tokenizer import Tokenizer

USUAL = Usual(width=768, layers=12, heads=12, wide=3072, activation="gelu_pytorch_tanh", epsilon=1e-6)
"""Sizes of both towers where the settings do not say them."""


def read_siglip(folder: Path | str, config: Settings) -> DualEncoder:
    """Reads a SigLIP in the layout of `transformers`.

    Args:
        folder: Folder of the model.
        config: Content of its config.json.

    Raises:
        BundleError: A file is missing or damaged, does not fit the others, or asks for what is not done here.
        InputError: There is no tokenizer, or it is not SigLIP's kind.
    """
    folder = Path(folder)
    text_config, vision_config = config.section("text_config"), config.section("vision_config")
    length = text_config.whole("max_position_embeddings", 64)
    tokenizer_json = siglip_tokenizer_json_from_folder(folder, length=length)
    tokenizer = Tokenizer.from_json(tokenizer_json)
    preprocessing = read_preprocessing(folder, vision_config.whole("image_size", 224), SIGLIP_PICTURES)
    weights = read_weights(folder, WEIGHT_FILES)
    vision = _vision(vision_config, weights, preprocessing)
    return DualEncoder(
        vision=vision,
        text=_text(text_config, weights, vision.positions.shape[1], length, tokenizer),
        preprocessing=preprocessing,
        tokenizer_json=tokenizer_json,
        logit_scale=math.exp(weights.number("logit_scale")),
        logit_bias=weights.number("logit_bias"),
    )


def _vision(config: Settings, weights: Weights, pictures: Preprocessing) -> VisionTower:
    width, epsilon = width_and_epsilon(config, USUAL)
    size, patch = config.whole("image_size", 224), config.whole("patch_size", 16)
    config.choice("num_channels", 3, (3,))
    config.choice("vision_use_head", True, (True,))
    prefix = "vision_model"
    embedding = f"{prefix}.embeddings.patch_embedding"
    kernel, bias = weights.take(f"{embedding}.weight", width, 3, patch, patch), weights.take(f"{embedding}.bias", width)
    return VisionTower(
        size=size,
        patch=patch,
        embedding=patch_layer(kernel, bias, pictures.mean, pictures.deviation),
        class_token=None,
        positions=weights.take(f"{prefix}.embeddings.position_embedding.weight", (size // patch) ** 2, width),
        norm_before=None,
        layers=read_layers(config, weights, prefix, USUAL),
        norm=weights.norm(f"{prefix}.post_layernorm", width, epsilon),
        head=_head(config, weights, f"{prefix}.head"),
        projection=None,
    )


def _head(config: Settings, weights: Weights, prefix: str) -> PoolingHead:
    width, epsilon = width_and_epsilon(config, USUAL)
    wide = config.whole("intermediate_size", USUAL.wide)
    query, key, value = weights.joined_linears(
        f"{prefix}.attention.in_proj_weight", f"{prefix}.attention.in_proj_bias", width, 3
    )
    output = weights.linear(f"{prefix}.attention.out_proj", width, width)
    heads = heads_of(config, "num_attention_heads", USUAL.heads, width)
    return PoolingHead(
        probe=np.ascontiguousarray(weights.take(f"{prefix}.probe", 1, 1, width)[0, 0]),
        attention=Attention(query, key, value, output, heads),
        norm=weights.norm(f"{prefix}.layernorm", width, epsilon),
        widen=weights.linear(f"{prefix}.mlp.fc1", width, wide),
        activation=config.choice("hidden_act", USUAL.activation, ACTIVATIONS),
        narrow=weights.linear(f"{prefix}.mlp.fc2", wide, width),
    )


def _text(config: Settings, weights: Weights, out: int, length: int, tokenizer: Tokenizer) -> TextTower:
    width, epsilon = width_and_epsilon(config, USUAL)
    vocabulary = vocabulary_of(config, "vocab_size", 32000, tokenizer)
    prefix = "text_model"
    return TextTower(
        embedding=weights.take(f"{prefix}.embeddings.token_embedding.weight", vocabulary, width),
        positions=weights.take(f"{prefix}.embeddings.position_embedding.weight", length, width),
        layers=read_layers(config, weights, prefix, USUAL),
        norm=weights.norm(f"{prefix}.final_layer_norm", width, epsilon),
        projection=weights.linear(f"{prefix}.head", width, out),
        pooled="last",
    )
