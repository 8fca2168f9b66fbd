"""Familiarity: a direction that tells training clips from others, though both are near to each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.errors import InputError
from hbi_infer.tokens.familiarity import PASSING, Familiarity, clip_vectors
from hbi_infer.tokens.levels import LevelTokens


def vectors(seed: int, num: int, shift: float, width: int = 24) -> npt.NDArray[np.float32]:
    """Vectors that vary most along the first axis, and that `shift` moves along the last, on which they vary least."""
    made = np.random.default_rng(seed).normal(0, np.linspace(1, 0.05, width), (num, width))
    made[:, -1] += shift
    return made.astype(np.float32)


def test_axis_on_which_clips_vary_least_tells_them_from_others() -> None:
    familiarity = Familiarity.fitted(vectors(0, 600, 0.0), vectors(1, 300, 0.4))
    assert np.linalg.norm(familiarity.direction) == pytest.approx(1)
    unseen, others = vectors(2, 2000, 0.0), vectors(3, 2000, 0.4)
    assert (familiarity.distances(unseen) <= 0).mean() == pytest.approx(PASSING, abs=0.015)
    assert (familiarity.distances(others) > 0).mean() > 0.98
    nearest = np.sort(np.linalg.norm(others[:, None] - vectors(0, 200, 0.0)[None], axis=2), axis=1)[:, 0]
    usual = np.sort(np.linalg.norm(unseen[:, None] - vectors(0, 200, 0.0)[None], axis=2), axis=1)[:, 0]
    assert np.median(nearest) < 1.2 * np.median(usual), "their distance tells little"


def test_clips_are_judged_by_their_mean_unit_token() -> None:
    tokens = np.array([[[3, 0], [0, 0.5], [9, 9]], [[0, 7], [0, 1], [0, 2]]], np.float32)
    weights = np.array([[0.25, 0.75, 0], [0.5, 0.25, 0.25]], np.float32)
    levels = {"entity": LevelTokens(tokens, weights), "event": LevelTokens(np.zeros((2, 1, 2)), np.ones((2, 1)))}
    np.testing.assert_allclose(clip_vectors(levels), [[0.25, 0.75], [0, 1]], atol=1e-6)
    familiarity = Familiarity(np.array([0, 1], np.float32), 0.8)
    np.testing.assert_array_equal(familiarity.unfamiliar(levels), [False, True])
    np.testing.assert_allclose(familiarity.distances(clip_vectors(levels)), [-0.05, 0.2], atol=1e-6)


def test_clips_that_are_all_alike_give_a_direction_too() -> None:
    familiarity = Familiarity.fitted(np.zeros((40, 3), np.float32), np.ones((20, 3), np.float32) * [0, 0, 1])
    assert np.isfinite(familiarity.direction).all()


@pytest.mark.parametrize(("num_familiar", "num_strange"), [(29, 100), (100, 19), (0, 0)])
def test_too_few_clips_are_refused(num_familiar: int, num_strange: int) -> None:
    with pytest.raises(InputError, match=f"there are {num_familiar} training clips and {num_strange} others"):
        Familiarity.fitted(vectors(0, num_familiar, 0), vectors(1, num_strange, 1))
