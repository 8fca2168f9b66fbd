"""Recipes: a YAML file that says everything about a training run. Recipe and code give the same model from one seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from hbi_infer.errors import TrainingError
from hbi_training.model.config import from_mapping, require_positive
from hbi_training.objective.objective import Objective


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the clips are and how they are read.

    Attributes:
        format: One of the data sets that `hbi_training.data` reads, or "manifest" for the plain JSONL manifest.
        folder: Its folder; a relative one is taken from where the command runs. `--data` overrides it.
        vocabulary: "clip" keeps CLIP's 49,408 tokens; "corpus" keeps the merges that the training captions need.
        shift_pixels: Training clips are moved by up to this many pixels, all frames of a clip alike.
        max_answers: Of the training questions' answers, so many of the most frequent make the closed list.
    """

    format: str
    folder: str
    vocabulary: Literal["clip", "corpus"] = "clip"
    shift_pixels: int = 0
    max_answers: int = 1500


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions:
    """AdamW, or Muon beside it, with linear warm-up, a plateau and a cosine to zero.

    Attributes:
        steps: Optimiser steps in all.
        batch_size: Pairs of a step, over all devices together.
        learning_rate: Of everything but CLIP.
        clip_learning_rate: Of CLIP's encoders; the published setting with learnt weights is 1e-7.
        position_learning_rate: Of the learned positions of frames, patches and words; None for the rate of the part
            that they belong to. They start near zero: in a model with random weights, at the rate of the rest, they
            stay a few hundredths of what they are added to, and it hardly learns which way things move.
        matrices: "adamw", or "muon" (Jordan et al. 2024, with the step size of Liu et al. 2025): it orthogonalises the
            updates of weight matrices and learns from fewer steps where a model starts from random weights. Embeddings,
            convolutions and vectors stay with AdamW, and the learning rates mean the same.
        weight_decay: For matrices; vectors (norms, biases) have none.
        warmup_steps: Steps of linear warm-up.
        decay_steps: The last steps, in which the rate falls to zero; None for all after the warm-up. With a plateau, a
            longer run begins as a shorter one does.
        frozen: Parts of the model that stay as they are. Where all of `VIDEO_ENCODER` is among them and clips are not
            shifted, the tokens of every clip are computed once.
        max_gradient_norm: Gradients are scaled down to this norm.
        mixed_precision: "no", "bf16", "fp16", or "auto": bf16 where the device computes in it. Processors that do not
            take several times as long with it as without.
    """

    steps: int
    batch_size: int
    learning_rate: float
    clip_learning_rate: float
    position_learning_rate: float | None = None
    matrices: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.2
    warmup_steps: int = 0
    decay_steps: int | None = None
    frozen: tuple[str, ...] = ()
    max_gradient_norm: float = 1.0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "no"

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How often a run says, measures and saves what it has.

    Attributes:
        evaluate_steps: Steps between two evaluations on the validation split.
        checkpoint_steps: Steps between two checkpoints to resume from.
        log_steps: Steps between two lines of losses.
    """

    evaluate_steps: int = 500
    checkpoint_steps: int = 200
    log_steps: int = 20

    def __post_init__(self) -> None:
        require_positive(self, "evaluate_steps", "checkpoint_steps", "log_steps")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        name: The name of the model that comes out of it.
        notice: One line that users of the model are told; may be empty.
        seed: Of the weights, the order of the clips and the choice of captions.
        initial: A checkpoint whose weights the model starts from, as far as it has the same parts; "" for none.
        model: `kind` ("hbi" or "mean_pooled_clip") and the fields of its configuration.
        data: Where the clips are.
        objective: Weights of the loss's terms.
        optimiser: Steps, sizes and rates.
        report: How often to measure and save.
    """

    name: str
    notice: str = ""
    seed: int = 0
    initial: str = ""
    model: Mapping[str, Any]
    data: DataOptions
    objective: Objective = field(default_factory=Objective)
    optimiser: OptimiserOptions
    report: ReportOptions = field(default_factory=ReportOptions)


SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "objective": Objective,
    "optimiser": OptimiserOptions,
    "report": ReportOptions,
}


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: The YAML file.
        overrides: Dotted keys and YAML values in place of the file's: {"optimiser.steps": "100"}.

    Raises:
        TrainingError: The file is missing, is not YAML, or has an unknown or a missing key.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise TrainingError(f"cannot read the recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"the recipe {path} is not a mapping of sections")
    for key, value in (overrides or {}).items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.safe_load(value)
    return recipe_from_mapping(content, f"the recipe {path}")


def recipe_from_mapping(content: Mapping[str, Any], where: str) -> Recipe:
    """Builds a recipe from its sections; every unknown or missing key is an error that names it."""
    built = {
        key: from_mapping(SECTIONS[key], value, f"{where}, section {key},") if key in SECTIONS else value
        for key, value in content.items()
    }
    return from_mapping(Recipe, built, where)


def recipe_to_mapping(recipe: Recipe) -> dict[str, Any]:
    """What `recipe_from_mapping` reads back, in JSON's types."""
    mapping: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return mapping
