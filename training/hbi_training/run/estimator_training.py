"""Training the estimator network on the exact interactions of a trained model's pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hbi_training.banzhaf.estimator import BanzhafEstimator
from hbi_training.banzhaf.exact import banzhaf_interaction
from hbi_training.banzhaf.sampled import RELEASED_SCALE
from hbi_training.data.batches import Batch, TrainingBatches
from hbi_training.data.frame_cache import Split
from hbi_training.model.hbi import HBI
from hbi_training.model.token_interaction import Tokens, pair_similarities
from hbi_training.objective.losses import mean_squared_error
from hbi_training.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class EstimatorOptions:
    """Options for training an estimator.

    Attributes:
        channels: Channels of the hidden layer; the authors' estimators have 64.
        steps: Steps of Adam, whose rate falls to 0 as a cosine.
        batch_size: Pairs of a step.
        learning_rate: Learning rate at the start.
        seed: Random seed of the weights and the batches.
    """

    channels: int = 64
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    seed: int = 0


def train_estimator(
    checkpoint: Checkpoint,
    train: Split,
    validation: Split,
    options: EstimatorOptions,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[BanzhafEstimator, dict[str, float]]:
    """Trains an estimator for the maps of every level; the model stays as it is.

    The target is the exact interaction times `RELEASED_SCALE`, the scale of the authors' files.

    Args:
        checkpoint: Trained model of kind hbi.
        train: Clips to learn from.
        validation: Clips to measure on.
        options: Options of training.
        advance: Callback for the number of steps just done.

    Returns:
        The network, and the part of the target's variance that it explains on validation pairs of each level.

    Raises:
        TrainingError: The model is of another kind.
    """
    model = checkpoint.model.require("interaction", "an estimator, which learns from tokens of several levels,")
    model.eval()
    torch.manual_seed(options.seed)
    estimator = BanzhafEstimator(options.channels)
    optimiser = torch.optim.Adam(estimator.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    batches = _batches(checkpoint, train, options)
    for step in range(options.steps):
        # Interactions grow as tokens get fewer; dividing by the variance makes the levels count alike.
        losses = [
            mean_squared_error(estimator(similarity, real), target, real) / target[real].var().clamp_min(1e-6)
            for similarity, target, real in maps(model, batches[step]).values()
        ]
        torch.stack(losses).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        advance(1)
    return estimator.eval(), explained_variance(estimator, model, _batches(checkpoint, validation, options))


def _batches(checkpoint: Checkpoint, split: Split, options: EstimatorOptions) -> TrainingBatches:
    rows = split.cache.decoded
    return TrainingBatches(
        [split.records[row] for row in rows],
        split.cache,
        checkpoint.tokenizer,
        rows=rows,
        batch_size=options.batch_size,
        max_words=checkpoint.model.config.max_words,
        seed=options.seed,
    )


@torch.no_grad()
def maps(model: HBI, batch: Batch) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Computes each level's cosines, scaled exact interactions, and mask of real pairs of tokens: (B, T, V) each."""
    text = model.encode_text(batch.token_ids, batch.token_mask)
    video = model.encode_video(batch.frames, batch.frame_mask)
    return {level: _map(text[level], video[level]) for level in text}


def _map(text: Tokens, video: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    real = text.mask[:, :, None] & video.mask[:, None, :]
    similarity = pair_similarities(text, video).masked_fill(~real, 0)
    target = banzhaf_interaction(similarity, text.weights, video.weights, text.mask, video.mask)
    return similarity, RELEASED_SCALE * target, real


@torch.no_grad()
def explained_variance(estimator: BanzhafEstimator, model: HBI, batches: TrainingBatches) -> dict[str, float]:
    """Computes 1 - (mean squared error) / (variance of the target) of each level, over one pass."""
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for step in range(batches.steps_per_pass):
        for level, (similarity, target, real) in maps(model, batches[step]).items():
            parts.setdefault(level, []).append((estimator(similarity, real)[real], target[real]))
    explained = {}
    for level, pairs in parts.items():
        estimate, target = (torch.cat(part) for part in zip(*pairs, strict=True))
        explained[level] = 1.0 - float((estimate - target).square().mean() / target.var())
    return explained
