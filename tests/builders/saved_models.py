"""Small models with random weights in the layouts that others save them in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from hbi_infer.model.sentence_piece import unigram_json
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


SIGLIP_PIECES: list[tuple[str, float]] = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    *((f"▁{word}", -3.0) for word in ("a", "dog", "on", "two", "cars", "beach", "word")),
    ("▁", -4.0),
    *((letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz"),
]


def tiny_siglip(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> SiglipModel:
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "hidden_size": 48}
    config = SiglipConfig(
        text_config={**layers, "vocab_size": 64, "max_position_embeddings": 12, **(text or {})},
        vision_config={**layers, "image_size": 32, "patch_size": 8, **(vision or {})},
    )
    model = unsettled(SiglipModel(config).eval())
    with torch.no_grad():
        model.logit_scale.fill_(4.7)  # type: ignore[operator,union-attr]
        model.logit_bias.fill_(-12.5)  # type: ignore[operator,union-attr]
    return model  # type: ignore[return-value]


def save_siglip(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """Saves a model as `transformers` does, with a tokenizer of SigLIP's kind."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(unigram_json(SIGLIP_PIECES, 2, length=None))
    said = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, **preprocessor}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


OPEN_CLIP_NAMES = (
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm", "ln_final"),
    (r"text_model\.encoder\.layers", "transformer.resblocks"),
    (r"text_projection\.weight", "text_projection"),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"vision_model\.post_layernorm", "visual.ln_post"),
    (r"vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"visual_projection\.weight", "visual.proj"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
)
"""Names of `transformers` -> those of OpenCLIP."""


def save_open_clip(model: CLIPModel, folder: Path, *, quick_gelu: bool, prefix: str = "", **model_cfg: Any) -> Path:
    """Saves the weights of a CLIP in OpenCLIP's layout; `prefix` stands before names of the text's tensors."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        renamed = name
        for pattern, replacement in OPEN_CLIP_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        if found := re.search(r"(.*)self_attn\.([qkv])_proj\.(\w+)", renamed):
            joined = f"{found[1]}attn.in_proj_{found[3]}"
            tensors[joined] = torch.cat([tensors.get(joined, tensor[:0]), tensor])
        else:
            tensors[renamed] = tensor.T if renamed.endswith(("text_projection", "visual.proj")) else tensor
    in_order = {name: _query_first(tensor) if "in_proj" in name else tensor for name, tensor in tensors.items()}
    named = {
        name if name.startswith(("visual.", "logit")) else f"{prefix}{name}": tensor.contiguous()
        for name, tensor in in_order.items()
    }
    save_file(named, folder / "open_clip_model.safetensors")
    text, vision = model.config.text_config, model.config.vision_config
    config = {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "quick_gelu": quick_gelu,
            "vision_cfg": {
                "image_size": vision.image_size,
                "layers": vision.num_hidden_layers,
                "width": vision.hidden_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
                "patch_size": vision.patch_size,
                "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "width": text.hidden_size,
                "heads": text.num_attention_heads,
                "layers": text.num_hidden_layers,
                "mlp_ratio": text.intermediate_size / text.hidden_size,
            },
            **model_cfg,
        },
        "preprocess_cfg": {},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def _query_first(joined: torch.Tensor) -> torch.Tensor:
    """Puts keys, values and queries, as the names of `transformers` are sorted, into the order of OpenCLIP."""
    key, value, query = joined.chunk(3)
    return torch.cat([query, key, value])
