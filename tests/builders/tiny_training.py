"""Models small enough to train in a test, and a few clips of shapes."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import torch

from hbi_infer.options import FrameSampling
from hbi_training.cli import main
from hbi_training.data.formats import load_records
from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.data.shapes import write_shapes
from hbi_training.run.recipe import Recipe, recipe_from_mapping

SAMPLING = {"frames_per_second": 3.0, "max_frames": 6, "image_size": 32, "clip_seconds": 4.0}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP: dict[str, Any] = {
    "projection_dim": 32,
    "text_config": {**TOWER, "max_position_embeddings": 40},
    "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
}
HBI_SECTION: dict[str, Any] = {
    "kind": "hbi",
    "clip": CLIP,
    "max_words": 40,
    "temporal_layers": 1,
    "temporal_heads": 2,
    "merge_heads": 2,
    "sampling": SAMPLING,
}
WITH_RECONSTRUCTION: dict[str, Any] = {**HBI_SECTION, "reconstruction_layers": 1}
ALL_TASKS: dict[str, Any] = {**WITH_RECONSTRUCTION, "caption_layers": 1}
MEAN_POOLED_SECTION: dict[str, Any] = {
    "kind": "mean_pooled_clip",
    "clip": CLIP,
    "max_words": 40,
    "sampling": SAMPLING,
}
FROZEN = ["frame_encoder", "word_encoder", "temporal_transformer", "text_hierarchy", "video_hierarchy", "logit_scale"]
"""The parts that tokens come from: what a recipe freezes that trains the heads alone."""


def with_vocabulary_size(section: dict[str, Any], size: int) -> dict[str, Any]:
    """The section with a text vocabulary of `size` tokens, for a model without a tokenizer."""
    ids = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": 0}
    return {**section, "clip": {**section["clip"], "text_config": {**section["clip"]["text_config"], **ids}}}


def tiny_recipe(**changes: Any) -> Recipe:
    """A recipe of a few steps; `changes` replace whole sections."""
    content = {
        "name": "tiny",
        "model": HBI_SECTION,
        "data": {"format": "manifest", "folder": "unused", "vocabulary": "corpus", "shift_pixels": 2},
        "objective": {"hard_negatives": 1},
        "optimiser": {
            "steps": 6,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "clip_learning_rate": 1e-3,
            "warmup_steps": 2,
        },
        "report": {"evaluate_steps": 6, "checkpoint_steps": 3, "log_steps": 1},
    }
    return recipe_from_mapping({**content, **changes}, "the test's recipe")


def shapes_splits(folder: Path, num_train: int = 24, num_val: int = 8) -> tuple[Split, Split]:
    """Training and validation clips of shapes, decoded."""
    if not (folder / "train.jsonl").exists():
        write_shapes(folder, num_train, num_val, 8, seed=3, workers=1)
    splits = []
    for name in ("train", "val"):
        records = load_records("manifest", folder, name)
        cache = FrameCache(folder / "frames", records, FrameSampling(**SAMPLING))
        cache.fill(workers=0)
        splits.append(Split(records, cache))
    return splits[0], splits[1]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models are equal to the bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def without_captions(split: Split) -> Split:
    """The clips of a split with their questions alone."""
    records = [replace(record, captions=(), hard_negatives=()) for record in split.records]
    return Split(records, split.cache)


def hbi_train(*arguments: object) -> list[str]:
    """The command line that runs `hbi-train` of this source tree."""
    return [sys.executable, "-c", "from hbi_training.cli import main; main()", *map(str, arguments)]


def run_here(*arguments: object) -> CompletedProcess[str]:
    """Runs `hbi-train` in this process, for a process of its own takes seconds to import PyTorch."""
    argv, out, err, code = sys.argv, StringIO(), StringIO(), 0
    sys.argv = ["hbi-train", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = argv
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
