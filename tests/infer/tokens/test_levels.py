"""Token containers: unit vectors, pooling, shapes."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_infer.tokens.levels import LevelTokens, pooled, unit


def level(seed: int, num_tokens: int) -> LevelTokens:
    rng = np.random.default_rng(seed)
    weights = rng.random((3, num_tokens)).astype(np.float32)
    weights[0, -1] = 0
    return LevelTokens(rng.standard_normal((3, num_tokens, 8)).astype(np.float32), weights / weights.sum(1)[:, None])


def test_unit_vectors_and_a_zero_stays_zero() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], np.float16)
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [0, 0]], atol=1e-7)
    assert unit(vectors).dtype == np.float32


def test_pooling_sums_the_levels_by_their_rates() -> None:
    levels = {"entity": level(0, 4), "action": level(1, 2)}
    expected = np.zeros((3, 8))
    for name, rate in (("entity", 2.0), ("action", 0.5)):
        for item in range(3):
            for token, weight in zip(levels[name].tokens[item], levels[name].weights[item], strict=True):
                expected[item] += rate * weight * token / np.linalg.norm(token)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled(levels, {"entity": 2.0, "action": 0.5}), expected, atol=1e-6)


def test_a_level_that_counts_nothing_does_not_count_in_the_pool() -> None:
    levels = {"frame": level(0, 4), "video": level(1, 2)}
    np.testing.assert_array_equal(
        pooled(levels, {"frame": 0.0, "video": 1.0}), pooled({"video": levels["video"]}, {"video": 1.0})
    )


def test_weights_must_fit_the_tokens() -> None:
    with pytest.raises(ValueError, match="are not"):
        LevelTokens(np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32))
