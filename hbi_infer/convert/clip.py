"""CLIP as `transformers` saves it: OpenAI's, LAION's and DataComp's models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbi_infer.convert.dual_encoder import DualEncoder
from hbi_infer.convert.onnx_builder import Activation, Attention, patch_layer
from hbi_infer.convert.preprocessing import CLIP_PICTURES, Preprocessing, read_preprocessing
from hbi_infer.convert.settings import Settings
from hbi_infer.convert.towers import Layer, TextTower, VisionTower
from hbi_infer.convert.weights import Weights, read_weights
from hbi_infer.errors import BundleError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json_from_folder

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files of weights in the layout of `transformers`, the best first."""
ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Activation in a configuration of `transformers` -> ours."""
LEGACY_END = 2
"""Id of the end of texts in the first configurations; it is wrong, and means the highest id of each text."""


@dataclass(frozen=True)
class Usual:
    """Sizes of a tower where its settings do not say them.

    Attributes:
        width: D.
        layers: Number of layers.
        heads: Number of heads.
        wide: Width between the two layers of a feed-forward part.
        activation: Name of the activation.
        epsilon: Number that norms add to the variance.
    """

    width: int
    layers: int
    heads: int
    wide: int
    activation: str
    epsilon: float


USUAL_VISION = Usual(width=768, layers=12, heads=12, wide=3072, activation="quick_gelu", epsilon=1e-5)
USUAL_TEXT = Usual(width=512, layers=12, heads=8, wide=2048, activation="quick_gelu", epsilon=1e-5)


def read_clip(folder: Path | str, config: Settings) -> DualEncoder:
    """Reads a CLIP in the layout of `transformers`.

    Args:
        folder: Folder of the model.
        config: Content of its config.json.

    Raises:
        BundleError: A file is missing or damaged, does not fit the others, or asks for what is not done here.
        InputError: There is no tokenizer, or it is not CLIP's kind.
    """
    folder = Path(folder)
    text_config, vision_config = _section(config, "text_config"), _section(config, "vision_config")
    tokenizer_json = clip_tokenizer_json_from_folder(folder)
    tokenizer = Tokenizer.from_json(tokenizer_json)
    size = vision_config.whole("image_size", 224)
    preprocessing = read_preprocessing(folder, size, CLIP_PICTURES)
    weights = read_weights(folder, WEIGHT_FILES)
    width = config.whole("projection_dim", 512)
    return DualEncoder(
        vision=_vision(vision_config, weights, width, preprocessing),
        text=_text(text_config, weights, width, tokenizer),
        preprocessing=preprocessing,
        tokenizer_json=tokenizer_json,
        logit_scale=math.exp(weights.number("logit_scale")),
    )


def _section(config: Settings, key: str) -> Settings:
    """Returns the settings of a tower; the first configurations have them twice, and the second place counts."""
    return config.section(f"{key}_dict" if f"{key}_dict" in config else key)


def _vision(config: Settings, weights: Weights, projection: int, pictures: Preprocessing) -> VisionTower:
    width, epsilon = width_and_epsilon(config, USUAL_VISION)
    size, patch = config.whole("image_size", 224), config.whole("patch_size", 32)
    config.choice("num_channels", 3, (3,))
    prefix = "vision_model"
    kernel = weights.take(f"{prefix}.embeddings.patch_embedding.weight", width, 3, patch, patch)
    num_patches = (size // patch) ** 2
    return VisionTower(
        size=size,
        patch=patch,
        embedding=patch_layer(kernel, None, pictures.mean, pictures.deviation),
        class_token=weights.take(f"{prefix}.embeddings.class_embedding", width),
        positions=weights.take(f"{prefix}.embeddings.position_embedding.weight", num_patches + 1, width),
        norm_before=weights.norm(f"{prefix}.pre_layrnorm", width, epsilon),
        layers=read_layers(config, weights, prefix, USUAL_VISION),
        norm=weights.norm(f"{prefix}.post_layernorm", width, epsilon),
        head=None,
        projection=weights.linear("visual_projection", width, projection, bias=False),
    )


def _text(config: Settings, weights: Weights, projection: int, tokenizer: Tokenizer) -> TextTower:
    width, epsilon = width_and_epsilon(config, USUAL_TEXT)
    vocabulary = vocabulary_of(config, "vocab_size", 49408, tokenizer)
    prefix = "text_model"
    return TextTower(
        embedding=weights.take(f"{prefix}.embeddings.token_embedding.weight", vocabulary, width),
        positions=weights.take(
            f"{prefix}.embeddings.position_embedding.weight", config.whole("max_position_embeddings", 77), width
        ),
        layers=read_layers(config, weights, prefix, USUAL_TEXT),
        norm=weights.norm(f"{prefix}.final_layer_norm", width, epsilon),
        projection=weights.linear("text_projection", width, projection, bias=False),
        pooled=_pooled(config, tokenizer),
    )


def _pooled(config: Settings, tokenizer: Tokenizer) -> int | Literal["highest"]:
    """Returns the token that is pooled, which every text of the tokenizer must have."""
    end = config.raw("eos_token_id") if "eos_token_id" in config else tokenizer.eot_id
    if end == LEGACY_END and tokenizer.eot_id != LEGACY_END:
        return "highest"
    if end != tokenizer.eot_id:
        raise config.unsupported("eos_token_id", f"{LEGACY_END}, or {tokenizer.eot_id} as in the tokenizer,", end)
    return tokenizer.eot_id


def width_and_epsilon(config: Settings, usual: Usual) -> tuple[int, float]:
    """Returns the width of a tower, and the number that its norms add to the variance."""
    return config.whole("hidden_size", usual.width), config.number("layer_norm_eps", usual.epsilon, least=0, most=1)


def vocabulary_of(config: Settings, key: str, usual: int, tokenizer: Tokenizer) -> int:
    """Returns the number of tokens that a model knows, which its tokenizer must not exceed."""
    known = config.whole(key, usual)
    if tokenizer.vocabulary_size > known:
        raise BundleError(
            f"the tokenizer makes {tokenizer.vocabulary_size:,} tokens and the model knows {known:,}: put the "
            "tokenizer.json that belongs to the model into its folder"
        )
    return known


def read_layers(config: Settings, weights: Weights, prefix: str, usual: Usual) -> tuple[Layer, ...]:
    """Reads the layers of a tower as `transformers` names them in CLIP and in SigLIP.

    Args:
        config: Settings of the tower.
        weights: Weights of the model.
        prefix: Name of the tower in them.
        usual: Sizes where the settings do not say them.
    """
    width, epsilon = width_and_epsilon(config, usual)
    heads = heads_of(config, "num_attention_heads", usual.heads, width)
    wide = config.whole("intermediate_size", usual.wide)
    kind = config.choice("hidden_act", usual.activation, ACTIVATIONS)
    layers = []
    for number in range(config.whole("num_hidden_layers", usual.layers)):
        name = f"{prefix}.encoder.layers.{number}"
        query, key, value, output = (
            weights.linear(f"{name}.self_attn.{part}", width, width)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        layers.append(
            Layer(
                attention_norm=weights.norm(f"{name}.layer_norm1", width, epsilon),
                attention=Attention(query, key, value, output, heads),
                norm=weights.norm(f"{name}.layer_norm2", width, epsilon),
                widen=weights.linear(f"{name}.mlp.fc1", width, wide),
                activation=kind,
                narrow=weights.linear(f"{name}.mlp.fc2", wide, width),
            )
        )
    return tuple(layers)


def heads_of(config: Settings, key: str, usual: int, width: int) -> int:
    """Returns the number of heads, which must divide the width."""
    heads = config.whole(key, usual)
    if width % heads:
        raise config.unsupported(key, f"a divisor of {width}", heads)
    return heads
