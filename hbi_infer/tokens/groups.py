"""Words and frames that the tokens of each level stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.levels import Levels

Groups = tuple[tuple[int, ...], ...]
"""Positions of the words (or frames) that were merged into each token of a level. A token made of padding, as the
released merging makes them, has none."""


def groups_by_level(levels: Levels, num_places: int, num_real: int) -> dict[str, Groups]:
    """Returns the words (or frames) that each real token stands for, at each level where they are known.

    `slots` lead from the words or frames to the tokens of the first level, and from the tokens of each level to those
    of the next. Without slots, tokens of the first level are the words or frames themselves if there are as many. A
    level's only token stands for everything.

    Args:
        levels: A batch of one.
        num_places: Number of words or frames, padding included.
        num_real: Number of them without padding, which comes last.
    """
    known: dict[str, Groups] = {}
    groups: Groups | None = tuple((place,) if place < num_real else () for place in range(num_places))
    for number, (name, level) in enumerate(levels.items()):
        num_tokens = level.weights.shape[1]
        if num_tokens == 1:
            groups = (tuple(range(num_real)),)
        elif groups is not None and level.slots is not None and level.slots.shape[1] == len(groups):
            groups = _gathered(groups, level.slots[0], num_tokens)
        elif number > 0 or num_tokens != num_places:
            groups = None
        if groups is not None:
            known[name] = tuple(groups[token] for token in np.flatnonzero(level.weights[0] > 0))
    return known


def _gathered(below: Groups, slots: npt.NDArray[np.integer[Any]], num_tokens: int) -> Groups:
    """Joins groups of the level below by the token (M,) that each was merged into, -1 for none."""
    groups: list[list[int]] = [[] for _ in range(num_tokens)]
    for group, slot in zip(below, slots.tolist(), strict=True):
        if slot >= 0:
            groups[slot] += group
    return tuple(tuple(sorted(group)) for group in groups)
