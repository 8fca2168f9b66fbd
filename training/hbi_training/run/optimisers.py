"""The optimisers of a run, the learning rate of each parameter, and the course of the rates over the steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from hbi_training.objective.training_step import TrainingStep
from hbi_training.run.muon import Muon
from hbi_training.run.recipe import OptimiserOptions

Groups = dict[tuple[bool, float, float], list[nn.Parameter]]
"""(whether Muon steps them, learning rate, weight decay) -> parameters."""


def learning_rate_factor(step: int, options: OptimiserOptions) -> float:
    """Returns the factor of every learning rate at a step: linear warm-up, plateau, cosine to 0.

    The factor is above 0 at the first step, so that the step is not wasted.
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    decay_steps = options.decay_steps or options.steps - options.warmup_steps
    progress = 1.0 - (options.steps - step) / max(decay_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def build_optimisers(
    step: TrainingStep, options: OptimiserOptions, *, muon_dtype: torch.dtype | None = None
) -> list[torch.optim.Optimizer]:
    """Builds the optimisers of all parameters that are trained.

    CLIP's encoders have a learning rate of their own; norms, biases and the temperature have no weight decay.

    Args:
        step: The model with its loss.
        options: Rates, decay, and the optimiser of weight matrices.
        muon_dtype: Precision in which Muon orthogonalises; None for the precision of the weights.

    Returns:
        AdamW, followed by Muon if the options ask for it.
    """
    groups = _groups(step, options)
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(_settings(groups, muon=False), betas=(0.9, 0.98))]
    if options.matrices == "muon":
        optimisers.append(Muon(_settings(groups, muon=True), dtype=muon_dtype))
    return optimisers


def _groups(step: TrainingStep, options: OptimiserOptions) -> Groups:
    """Sorts the parameters that are trained by their optimiser, learning rate and weight decay."""
    tables = {id(module.weight) for module in step.modules() if isinstance(module, nn.Embedding)}
    groups: Groups = {}
    for name, parameter in step.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        by_muon = options.matrices == "muon" and parameter.ndim == 2 and id(parameter) not in tables
        groups.setdefault((by_muon, _learning_rate(name, options), decay), []).append(parameter)
    return groups


def _learning_rate(name: str, options: OptimiserOptions) -> float:
    """Returns the learning rate of a parameter by its name inside the training step."""
    if options.position_learning_rate is not None and ".position" in name:
        return options.position_learning_rate
    is_clip = name.startswith(("model.frame_encoder.", "model.word_encoder."))
    return options.clip_learning_rate if is_clip else options.learning_rate


def _settings(groups: Groups, *, muon: bool) -> list[dict[str, Any]]:
    """Returns the parameter groups of one of the two optimisers."""
    return [
        {"params": group, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (by_muon, rate, decay), group in groups.items()
        if by_muon == muon
    ]
