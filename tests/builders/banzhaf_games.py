"""Random Banzhaf games, and their value written as the definition stands."""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hbi_infer.tokens.similarity import Directions

Floats = npt.NDArray[np.float64]


def random_game(seed: int, shape: tuple[int, int, int], *, peaked: float = 1.0, padded: bool = True) -> Any:
    """A game in float64: cosines of both signs, weights down to 1e-9 of the mean as `peaked` rises, ragged masks."""
    rng = np.random.default_rng(seed)
    batch, num_text, num_video = shape
    similarity = rng.uniform(-1, 1, shape)
    text, video = (np.exp(peaked * rng.normal(size=(batch, size))) for size in (num_text, num_video))
    fewest = [1, 1] if padded else [num_text, num_video]
    masks = (
        np.arange(size) < rng.integers(least, size + 1, (batch, 1))
        for size, least in zip((num_text, num_video), fewest, strict=True)
    )
    return similarity, text, video, *masks


def in_torch(arrays: Any, dtype: torch.dtype = torch.float64) -> Any:
    similarity, text, video, text_mask, video_mask = map(torch.from_numpy, arrays)
    return similarity.to(dtype), text.to(dtype), video.to(dtype), text_mask, video_mask


def value(
    similarity: Floats, text: Floats, video: Floats, words: Any, frames: Any, directions: Directions = "both"
) -> float:
    """v of one coalition, written as the definition stands."""
    if not words or not frames:
        return 0.0
    part = np.maximum(similarity[np.ix_(words, frames)], 0)
    a, u = text[list(words)], video[list(frames)]
    text_sum, video_sum = float(a / a.sum() @ part.max(1)), float(u / u.sum() @ part.max(0))
    return 0.5 * (text_sum + video_sum) if directions == "both" else text_sum


def subsets(items: list[int]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(items, size) for size in range(len(items) + 1)))
