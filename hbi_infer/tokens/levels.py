"""Tokens of a batch of texts or of videos, level by level, as the encoders give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LevelTokens:
    """Tokens of one level (entity, action or event) for B texts or B videos.

    Attributes:
        tokens: (B, N, D) float32 or float16, as the model made them (not normalised).
        weights: (B, N) float32, at least 0, summing to 1 over N. A weight of 0 marks padding: such a token takes part
            in nothing.
        slots: (B, M) integers, for each of the M tokens of the level below, which token of this level it was merged
            into, and -1 at padding; None where nothing was merged.
    """

    tokens: FloatArray
    weights: FloatArray
    slots: npt.NDArray[np.integer[Any]] | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.weights.shape != self.tokens.shape[:2]:
            raise ValueError(
                f"tokens {self.tokens.shape} and weights {self.weights.shape} are not (B, N, D) and (B, N)"
            )

    def __len__(self) -> int:
        """The batch size B."""
        return len(self.tokens)

    def __getitem__(self, items: slice | npt.NDArray[np.integer[Any]]) -> LevelTokens:
        """Returns some items of the batch."""
        return LevelTokens(self.tokens[items], self.weights[items], None if self.slots is None else self.slots[items])


Levels = Mapping[str, LevelTokens]
"""Level name -> its tokens, in the bundle's order of levels, all with the same B and D."""


def item(levels: Levels, row: int) -> Levels:
    """Returns one item of a batch, as a batch of one."""
    return some(levels, slice(row, row + 1))


def some(levels: Levels, items: slice | npt.NDArray[np.integer[Any]]) -> Levels:
    """Returns some items of B, in any order and number (N,)."""
    return {name: level[items] for name, level in levels.items()}


def joined(parts: Sequence[Levels]) -> dict[str, LevelTokens]:
    """Joins batches of B items, with the same levels and numbers of tokens, into one batch of N."""
    levels = {}
    for name in parts[0]:
        batches = [part[name] for part in parts]
        slots = [batch.slots for batch in batches if batch.slots is not None]
        levels[name] = LevelTokens(
            np.concatenate([batch.tokens for batch in batches]),
            np.concatenate([batch.weights for batch in batches]),
            np.concatenate(slots) if len(slots) == len(batches) else None,
        )
    return levels


def unsound(levels: Levels) -> str:
    """Returns why the tokens of a batch of B cannot be used; empty if they can.

    They can if every number is finite, no weight is negative, each item has a real token at each level, and each token
    was merged into a slot that exists.
    """
    return next((fault for name, level in levels.items() if (fault := _unsound(name, level))), "")


def _unsound(name: str, level: LevelTokens) -> str:
    weights, slots = level.weights, level.slots
    if not np.isfinite(level.tokens).all():
        return f"numbers that are not finite ({name}_tokens)"
    if not np.isfinite(weights).all():
        return f"numbers that are not finite ({name}_weights)"
    if not ((weights >= 0).all() and (weights > 0).any(axis=1).all()):
        return f"weights that are negative or all 0 ({name}_weights)"
    if slots is not None and not ((slots >= -1).all() and (slots < weights.shape[1]).all()):
        return f"slots that do not exist ({name}_slots)"
    return ""


def named_inputs(side: str, levels: Levels) -> dict[str, npt.NDArray[np.float32]]:
    """Names the tokens (B, N, D) and weights (B, N) of one side as the graphs on tokens take them, in float32."""
    return {
        f"{side}_{name}_{part}": getattr(level, part).astype(np.float32, copy=False)
        for name, level in levels.items()
        for part in ("tokens", "weights")
    }


def unit(vectors: FloatArray) -> npt.NDArray[np.float32]:
    """Scales vectors (N, D), or of more axes, to length 1 as float32; a zero vector stays zero."""
    vectors = vectors.astype(np.float32, copy=False)
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    scaled: npt.NDArray[np.float32] = vectors / np.maximum(length, np.float32(1e-12))
    return scaled


def pooled(levels: Levels, rates: Mapping[str, float]) -> npt.NDArray[np.float32]:
    """Computes unit vectors (B, D) float32: the weighted mean unit token of each level, summed by rate."""
    means = [
        np.float32(rates[name]) * np.einsum("bn,bnd->bd", level.weights, unit(level.tokens))
        for name, level in levels.items()
        if rates[name]
    ]
    return unit(np.sum(means, axis=0, dtype=np.float32))
