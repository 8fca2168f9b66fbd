"""Makes models of real size with random weights: run time does not depend on what a model has learnt."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
import torch

import hbi_export
import hbi_training
from hbi_export.bundle import export_bundle
from hbi_infer.errors import InputError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.weights.checkpoint import Checkpoint, build_model, save_checkpoint

NUM_ANSWERS = 1500
"""Number of answers that the published models of question answering choose from."""


def _published(patch_size: int) -> dict[str, Any]:
    """Returns the sizes of the published models: CLIP's ViT-B, 12 frames, 32 words; every task."""
    return {
        "kind": "hbi",
        # Missing sizes are transformers' defaults, which are those of CLIP's ViT-B.
        "clip": {
            "projection_dim": 512,
            "text_config": {},
            "vision_config": {"image_size": 224, "patch_size": patch_size},
        },
        "max_words": 32,
        "sampling": {"frames_per_second": 1.0, "max_frames": 12, "image_size": 224, "clip_seconds": 12.0},
        "reconstruction_layers": 1,
        "caption_layers": 4,
        "answers": [f"answer {number}" for number in range(NUM_ANSWERS)],
        "answer_widths": [2048, 8192],
    }


SIZES = {"vit-b-32": _published(32), "vit-b-16": _published(16)}


def random_checkpoint(section: Mapping[str, Any], tokenizer_json: str, name: str) -> Checkpoint:
    """Makes a model of given sizes, with the same weights each time.

    Args:
        section: Section "model" of a recipe.
        tokenizer_json: See `hbi_infer.model.tokenizer`.
        name: Name of the model.
    """
    torch.manual_seed(0)
    model = build_model(section, Tokenizer.from_json(tokenizer_json)).eval()
    return Checkpoint(model, tokenizer_json, f"{name}, random weights", "this model has random weights")


def random_model(size: str, say: Callable[[str], None]) -> tuple[Path, Path]:
    """Makes the bundle and the checkpoint of a size, or takes them from the cache.

    Args:
        size: One of `SIZES`.
        say: Called with a line about what takes time.

    Returns:
        Folders of the bundle and of the checkpoint.

    Raises:
        InputError: The size is unknown.
    """
    if size not in SIZES:
        raise InputError(f"there is no size {size!r}; choose from: {', '.join(SIZES)}")
    cache = platformdirs.user_cache_path("hbi-infer") / "random"
    folder = cache / f"{size}-{_code_sha256()[:12]}"
    if folder.exists():
        say(f"taking the random model in {folder}, made before; remove that folder to make it anew")
    else:
        say(f"making a random model in {folder}; it is kept for the next time")
        for old in cache.glob(f"{size}-*"):  # of other code, which exported other graphs
            shutil.rmtree(old)
        partial = folder.with_name(f"{folder.name}.partial")
        checkpoint = random_checkpoint(SIZES[size], clip_tokenizer_json(), size)
        save_checkpoint(checkpoint, partial / "model")
        export_bundle(checkpoint, partial / "bundle")
        partial.rename(folder)
    return folder / "bundle", folder / "model"


def _code_sha256() -> str:
    """Hashes the code that makes models and graphs."""
    digest = hashlib.sha256()
    for package in (hbi_export, hbi_training):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
