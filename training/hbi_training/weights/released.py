"""The authors' released checkpoints: the names of their tensors, and the sizes that their shapes imply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling
from hbi_training.model.config import LEVELS, HBIConfig
from hbi_training.model.hbi import HBI

_NAMES = (
    ("logit_scale", "clip.logit_scale"),
    (r"word_encoder\.text\.embeddings\.position_embedding\.weight", "clip.positional_embedding"),
    (r"word_encoder\.text\.embeddings\.token_embedding\.", "clip.token_embedding."),
    (r"word_encoder\.text\.final_layer_norm\.", "clip.ln_final."),
    (r"word_encoder\.text\.encoder\.layers\.", "clip.transformer.resblocks."),
    (r"word_encoder\.projection\.weight", "clip.text_projection"),
    (r"frame_encoder\.vision\.embeddings\.class_embedding", "clip.visual.class_embedding"),
    (r"frame_encoder\.vision\.embeddings\.position_embedding\.weight", "clip.visual.positional_embedding"),
    (r"frame_encoder\.vision\.embeddings\.patch_embedding\.", "clip.visual.conv1."),
    (r"frame_encoder\.vision\.pre_layrnorm\.", "clip.visual.ln_pre."),
    (r"frame_encoder\.vision\.post_layernorm\.", "clip.visual.ln_post."),
    (r"frame_encoder\.vision\.encoder\.layers\.", "clip.visual.transformer.resblocks."),
    (r"frame_encoder\.projection\.weight", "clip.visual.proj"),
    (r"temporal_transformer\.position\.", "frame_position_embeddings."),
    (r"temporal_transformer\.encoder\.layers\.", "transformerClip.resblocks."),
    # The released code calls the levels "", 0 and 1, and the merging that makes level 0 also "0".
    (r"(text|video)_hierarchy\.weights\.(\w+)\.network\.", r"\1_weight_fc{level}."),
    (r"(t|v)\w+_hierarchy\.merges\.(\w+)\.attention\.norm\.", r"\1_block{level}.norm1."),
    (r"(t|v)\w+_hierarchy\.merges\.(\w+)\.attention\.", r"\1_block{level}.attn."),
    (r"(t|v)\w+_hierarchy\.merges\.(\w+)\.convolution\.", r"\1_ctm{level}.conv.conv."),
    (r"(t|v)\w+_hierarchy\.merges\.(\w+)\.", r"\1_ctm{level}."),
    (r"answer_head\.levels\.()(\w+)\.classifier\.", "classifier{level}."),
    (r"answer_head\.levels\.()(\w+)\.(t|v)\w+_scorer\.", r"\3_weight{level}."),
    (r"answer_head\.levels\.()(\w+)\.(t|v)\w+_projection\.", r"\3_proj{level}."),
)
_PARTS = (
    (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.attn\.query\.", ".attn.q."),
    (r"\.attn\.key_value\.", ".attn.kv."),
    (r"\.attn\.project\.", ".attn.proj."),
)
_TRANSPOSED = ("clip.text_projection", "clip.visual.proj")
"""Tensors that are stored transposed, for the released code multiplies x @ P."""
_UNUSED = (
    r"banzhaf(model|teacher)\d?\.",  # networks that serve training alone
    r"clip\.(input_resolution|context_length|vocab_size)$",  # sizes, in some of CLIP's own files
)
_SIZES_FROM = {
    "clip.visual.conv1.weight": 4,
    "clip.visual.positional_embedding": 2,
    "clip.token_embedding.weight": 2,
    "clip.positional_embedding": 2,
    "clip.text_projection": 2,
    "frame_position_embeddings.weight": 2,
}
"""Tensors whose shapes give the sizes of a model -> number of axes of each."""
_HEAD_SIZES_FROM = {"classifier.0.weight": 2, "classifier.2.weight": 2, "t_proj.weight": 2}


def released_key(key: str) -> str:
    """Returns the released name of the tensor that one of ours comes from.

    >>> released_key("text_hierarchy.merges.action.attention.query.bias")
    't_block0.attn.q.bias'
    """
    name = key
    for pattern, replacement in _NAMES:
        if found := re.match(pattern, key):
            level = ("", "0", "1")[LEVELS.index(found[2])] if "{level}" in replacement else ""
            name = found.expand(replacement.replace("{level}", level)) + key[found.end() :]
            break
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    return name


def convert_state_dict(released: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """Converts the tensors of a released state dict that our keys come from.

    Fused projections of query, key and value are split into (D, D) each, and those stored as `x @ P` are transposed.
    """
    ours = {}
    for key in keys:
        name = released_key(key)
        tensor = released[name]
        if name in _TRANSPOSED:
            tensor = tensor.T
        if part := re.search(r"\.self_attn\.([qkv])_proj\.", key):
            tensor = tensor.chunk(3)["qkv".index(part[1])]
        ours[key] = tensor
    return ours


@dataclass(frozen=True)
class LayoutCheck:
    """Comparison of a file's tensors with those that a model needs.

    Attributes:
        missing: Tensors that are needed and not there.
        misshapen: Tensors of another shape: name, shape, and the shape that the other tensors imply.
        unused: Tensors that inference does not use.
        unknown: Tensors that are not part of the released layout.
    """

    missing: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unused: tuple[str, ...]
    unknown: tuple[str, ...]

    def require(self, where: str) -> None:
        """Refuses a file whose tensors do not make the released model.

        Raises:
            TrainingError: Tensors are missing or of another shape; the message names them.
        """
        faults = []
        if self.missing:
            faults.append(f"it lacks {some(self.missing)}")
        if self.misshapen:
            shapes = [f"{name} is {shape} where {expected} fits" for name, shape, expected in self.misshapen]
            faults.append(f"sizes disagree: {some(shapes)}")
        if faults and self.unknown:
            faults.append(f"it has the unknown {some(self.unknown)}")
        if faults:
            raise TrainingError(f"{where} is not a released checkpoint that can be used: {'; '.join(faults)}")


def some(names: Sequence[str], most: int = 4) -> str:
    """Lists the first names, and counts the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def check_layout(released: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> LayoutCheck:
    """Compares tensors of a released state dict, of any shape such as (D, D), with those that ours need."""
    expected: dict[str, tuple[int, ...]] = {}
    for key, tensor in ours.items():
        name, shape = released_key(key), tuple(tensor.shape)
        if ".self_attn." in key and ".attn.in_proj_" in name:
            shape = (3 * shape[0], *shape[1:])
        expected[name] = shape[::-1] if name in _TRANSPOSED else shape
    extra = [name for name in released if name not in expected]
    unused = [name for name in extra if any(re.match(pattern, name) for pattern in _UNUSED)]
    return LayoutCheck(
        missing=tuple(name for name in expected if name not in released),
        misshapen=tuple(
            (name, tuple(released[name].shape), shape)
            for name, shape in expected.items()
            if name in released and tuple(released[name].shape) != shape
        ),
        unused=tuple(unused),
        unknown=tuple(name for name in extra if name not in unused),
    )


def load_released(model: HBI, released: Mapping[str, Tensor]) -> None:
    """Loads tensors, of any shape such as (D, D), of a state dict that `check_layout` found complete, into a model."""
    model.load_state_dict(convert_state_dict(released, model.state_dict()), strict=True)


def has_answer_head(released: Mapping[str, Tensor]) -> bool:
    """Returns whether a checkpoint has tensors of the answer head, such as (A, D); those for retrieval have none."""
    return any(name in released for name in _HEAD_SIZES_FROM)


def count_answers(released: Mapping[str, Tensor], where: str = "the state dict") -> int:
    """Returns the number A of answers of a checkpoint's classifier, whose last weight is (A, D).

    Raises:
        TrainingError: Tensors that give the sizes are missing.
    """
    _require_sizes(released, _HEAD_SIZES_FROM, where)
    return len(released["classifier.2.weight"])


def released_config(
    released: Mapping[str, Tensor],
    *,
    max_words: int = 32,
    answers: tuple[str, ...] = (),
    sampling: FrameSampling | None = None,
    where: str = "the state dict",
    **choices: Any,
) -> HBIConfig:
    """Returns the configuration with which our model repeats the released code on these weights.

    Shapes of tensors, such as (D, H, W), give the sizes, also of pictures. A head is 64 channels wide in CLIP and in
    the temporal transformer. The ratios of the merging are those of the task, for the tensors do not tell them.
    `answers` adds the answer head, whose tensors `count_answers` found.

    Raises:
        TrainingError: Tensors that give the sizes are missing, or texts or clips are longer or shorter than the model
            can take.
    """
    _require_sizes(released, _SIZES_FROM, where)
    vision_width, _, patch_size, _ = released["clip.visual.conv1.weight"].shape
    grid = round((len(released["clip.visual.positional_embedding"]) - 1) ** 0.5)
    vocabulary, text_width = released["clip.token_embedding.weight"].shape
    width = released["clip.text_projection"].shape[1]
    sampling = replace(sampling or FrameSampling(), image_size=patch_size * grid)
    clip = {
        "projection_dim": width,
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_hidden_layers": _num_layers(released, "clip.transformer"),
            "num_attention_heads": max(text_width // 64, 1),
            "max_position_embeddings": len(released["clip.positional_embedding"]),
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
        "vision_config": {
            "hidden_size": vision_width,
            "intermediate_size": 4 * vision_width,
            "num_hidden_layers": _num_layers(released, "clip.visual.transformer"),
            "num_attention_heads": max(vision_width // 64, 1),
            "image_size": patch_size * grid,
            "patch_size": patch_size,
        },
    }
    settings = {
        "temporal_layers": _num_layers(released, "transformerClip"),
        "temporal_heads": max(width // 64, 1),
        "temporal_positions": len(released["frame_position_embeddings.weight"]),
        "temporal_layer_norm_eps": 1e-12,
        "merging": "released",
        "padded_partner": "zero",
        "level_rates": (1.0, 0.0, 0.0),
    }
    if has_answer_head(released):
        settings |= {"text_merge_ratios": (0.25, 0.125), "video_merge_ratios": (0.25, 0.25)}
    if answers:
        widths = len(released["t_proj.weight"]), len(released["classifier.0.weight"])
        settings |= {"answers": answers, "answer_widths": widths}
    config = HBIConfig.from_json(
        {"clip": clip, "max_words": max_words, "sampling": asdict(sampling), **settings, **choices}
    )
    _require_lengths(config)
    return config


def _num_layers(released: Mapping[str, Tensor], prefix: str) -> int:
    return len({m[1] for key in released if (m := re.match(rf"{re.escape(prefix)}\.resblocks\.(\d+)\.", key))})


def _require_sizes(released: Mapping[str, Tensor], needed: Mapping[str, int], where: str) -> None:
    if missing := [name for name in needed if name not in released]:
        has = f"; it has {some(list(released), 3)}" if released else ""
        raise TrainingError(f"{where} is not a released checkpoint: it lacks {some(missing)}{has}")
    for name, axes in needed.items():
        if released[name].ndim != axes or not all(released[name].shape):
            shape = tuple(released[name].shape)
            raise TrainingError(f"{where}: {name} is {shape}; it must have {axes} axes, none of them empty")


def _require_lengths(config: HBIConfig) -> None:
    """Refuses texts and clips that are too short to leave enough tokens to merge."""
    lengths = (
        ("max_words", config.max_words, config.text_token_counts),
        ("max_frames", config.sampling.max_frames, config.video_token_counts),
    )
    for name, length, counts in lengths:
        if min(counts[:-1]) < config.neighbours:
            raise TrainingError(
                f"{name} is {length}, which makes levels of {', '.join(map(str, counts))} tokens; the released merging "
                f"needs at least {config.neighbours} tokens to merge: choose a larger {name}"
            )
