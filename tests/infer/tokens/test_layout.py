"""Packed records: to half precision and back, beyond its range, not finite, of another layout."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_infer.tokens.layout import TokenLayout, is_finite, widen
from hbi_infer.tokens.levels import Levels, LevelTokens

WIDTH = 8


VIDEO_SIZES = {"entity": 5, "event": 2}


TEXT_SIZES = {"entity": 7, "event": 3}


LAYOUT = TokenLayout(tuple(VIDEO_SIZES.items()), WIDTH)


def random_levels(rng: np.random.Generator, batch: int, sizes: dict[str, int], padding: float = 0.4) -> Levels:
    """Tokens of any length; about that share of them padding, but never the first."""
    levels = {}
    for name, num_tokens in sizes.items():
        weights = rng.random((batch, num_tokens)).astype(np.float32) + 0.1
        weights[:, 1:] *= rng.random((batch, num_tokens - 1)) >= padding
        tokens = rng.standard_normal((batch, num_tokens, WIDTH)).astype(np.float32)
        levels[name] = LevelTokens(tokens * 5, weights / weights.sum(axis=1, keepdims=True))
    return levels


def large() -> Levels:
    return random_levels(np.random.default_rng(0), 1, VIDEO_SIZES)


def test_widening_gives_what_numpys_cast_gives_for_every_finite_number() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    out = np.empty(halves.shape, np.float32)
    widen(halves, out)
    assert (out.view(np.uint32) == halves.astype(np.float32).view(np.uint32)).all()


def test_packed_tokens_come_back_to_half_precision() -> None:
    levels = random_levels(np.random.default_rng(0), 4, VIDEO_SIZES)
    records = LAYOUT.pack(levels)
    assert records.nbytes == 4 * 7 * (WIDTH * 2 + 8)
    for name, level in LAYOUT.unpack(records).items():
        np.testing.assert_allclose(level.tokens, levels[name].tokens, rtol=1e-3, atol=1e-4)
        assert (level.weights == levels[name].weights).all()


def test_tokens_beyond_half_precision_are_kept() -> None:
    levels = {name: LevelTokens(level.tokens * 1e6, level.weights) for name, level in large().items()}
    records = LAYOUT.pack(levels)
    assert is_finite(records)
    np.testing.assert_allclose(LAYOUT.unpack(records)["entity"].tokens, levels["entity"].tokens, rtol=1e-3, atol=1e4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tokens_that_are_not_finite_are_told(value: float) -> None:
    levels = large()
    levels["event"].tokens[0, 1, 3] = value
    assert not is_finite(LAYOUT.pack(levels))


def test_tokens_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        LAYOUT.pack(random_levels(np.random.default_rng(0), 1, TEXT_SIZES))
