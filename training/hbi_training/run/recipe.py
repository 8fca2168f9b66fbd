"""Recipes: YAML files that determine a training run; a recipe and its seed give the same model each time."""

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
    """Location of the clips, and options for reading them.

    Attributes:
        format: Name of a data set that `hbi_training.data` reads, or "manifest" for the plain JSONL manifest.
        folder: Folder of the data set, relative to where the command runs; `--data` overrides it.
        vocabulary: "clip" keeps CLIP's 49,408 tokens; "corpus" keeps the merges that the training captions need.
        shift_pixels: Greatest shift of training clips in pixels; all frames of a clip move alike.
        max_answers: Size of the closed list of answers: the most frequent ones to the training questions.
    """

    format: str
    folder: str
    vocabulary: Literal["clip", "corpus"] = "clip"
    shift_pixels: int = 0
    max_answers: int = 1500


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions:
    """Options of AdamW, with or without Muon, and of its rates: linear warm-up, plateau, cosine to zero.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Pairs of a step, over all devices together.
        learning_rate: Rate of everything but CLIP.
        clip_learning_rate: Rate of CLIP's encoders; the published setting with trained weights is 1e-7.
        position_learning_rate: Rate of the learned positions of frames, patches and words; None for the rate of the
            part that they belong to. They start near zero: in a model with random weights, at the rate of the rest,
            they stay a few hundredths of what they are added to, and it hardly learns which way things move.
        matrices: "adamw", or "muon" (Jordan et al. 2024, with the step size of Liu et al. 2025), which orthogonalises
            the updates of weight matrices and needs fewer steps if a model starts from random weights. Embeddings,
            convolutions and vectors stay with AdamW, and the learning rates mean the same.
        weight_decay: Decay of matrices; vectors (norms, biases) have none.
        warmup_steps: Steps of linear warm-up.
        decay_steps: Last steps, in which the rate falls to zero; None for all after the warm-up. With a plateau, a
            longer run begins like a shorter one.
        frozen: Parts of the model that are not trained. If they include all of `VIDEO_ENCODER` and clips are not
            shifted, the tokens of every clip are computed once.
        max_gradient_norm: Greatest norm of the gradients, to which larger ones are scaled down.
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
    """Intervals at which a run logs, measures and saves.

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
        name: Name of the trained model.
        notice: One line that users of the model are told; may be empty.
        seed: Random seed of the weights, the order of the clips and the choice of captions.
        initial: Checkpoint whose weights the model starts from, where parts agree; "" for none.
        model: `kind` ("hbi" or "mean_pooled_clip") and the fields of its configuration.
        data: Location and format of the clips.
        objective: Weights of the loss's terms.
        optimiser: Steps, sizes and rates.
        report: Intervals of logging, measuring and saving.
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


RECIPE_LIMIT_BYTES = 2**18
SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "objective": Objective,
    "optimiser": OptimiserOptions,
    "report": ReportOptions,
}


def load_recipe(path: Path | str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: YAML file.
        overrides: Dotted keys and YAML values that replace those of the file: {"optimiser.steps": "100"}.

    Raises:
        TrainingError: The file is missing, huge or not YAML, or a key is unknown or missing.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(RECIPE_LIMIT_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"cannot read the recipe {path}: {error.strerror}") from error
    if len(text) > RECIPE_LIMIT_BYTES:
        raise TrainingError(f"the recipe {path} has more than {RECIPE_LIMIT_BYTES:,} bytes: it is no recipe")
    content = _parse(text, f"the recipe {path}")
    if not isinstance(content, dict):
        raise TrainingError(f"the recipe {path} is not a mapping of sections")
    for key, value in (overrides or {}).items():
        _override(content, key, _parse(value, f"the value of {key}"))
    return recipe_from_mapping(content, f"the recipe {path}")


class _Loader(yaml.SafeLoader):
    """YAML without references: a few lines of them may stand for more values than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} refers to another place: write the values themselves", event.start_mark
            )
        return super().compose_node(parent, index)


def _parse(text: str | bytes, where: str) -> Any:
    """Parses YAML, which is not trusted.

    Raises:
        TrainingError: It is not YAML, or holds what a recipe does not.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise TrainingError(f"{where} is nested too deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the second for impossible dates and numbers
        raise TrainingError(f"{where} is not YAML: {' '.join(str(error).split()):.300}") from error


def _override(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise TrainingError(f"{key} cannot be set: {section} is {place!r:.80}, which is not a section")
    place[name] = value


def recipe_from_mapping(content: Mapping[str, Any], where: str) -> Recipe:
    """Builds a recipe from its sections; the error for an unknown or missing key names it."""
    built = {
        key: from_mapping(SECTIONS[key], value, f"{where}, section {key},") if key in SECTIONS else value
        for key, value in content.items()
    }
    return from_mapping(Recipe, built, where)


def recipe_to_mapping(recipe: Recipe) -> dict[str, Any]:
    """Returns a mapping of JSON's types that `recipe_from_mapping` reads back."""
    mapping: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return mapping
