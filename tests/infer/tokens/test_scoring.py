"""Scores, pooled vectors and matrices by one description of how a bundle compares tokens."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_infer.tokens.layout import TokenLayout
from hbi_infer.tokens.levels import Levels, LevelTokens, pooled
from hbi_infer.tokens.scoring import Scoring
from hbi_infer.tokens.similarity import Directions, PaddedPartner, similarity

LAYOUT = TokenLayout((("entity", 4), ("event", 2)), 8)


def tokens(seed: int, batch: int) -> Levels:
    """Random levels whose last entity token is padding."""
    rng = np.random.default_rng(seed)
    levels = {}
    for name, size in LAYOUT.levels:
        weights = rng.uniform(0.1, 1, (batch, size)).astype(np.float32)
        weights[:, -1] *= name != "entity"
        levels[name] = LevelTokens(
            rng.standard_normal((batch, size, LAYOUT.width)).astype(np.float32),
            weights / weights.sum(axis=1, keepdims=True),
        )
    return levels


@pytest.mark.parametrize("directions", ["both", "text_to_video"])
@pytest.mark.parametrize("padded_partner", ["ignore", "zero"])
def test_matrix_and_reference_score_alike(padded_partner: PaddedPartner, directions: Directions) -> None:
    scoring = Scoring({"entity": 1.0, "event": 0.5}, padded_partner, directions)
    texts, clips = tokens(0, 3), tokens(1, 7)
    scores = scoring.similarity(texts, clips)
    expected = similarity(texts, clips, scoring.rates, padded_partner=padded_partner, directions=directions)
    np.testing.assert_array_equal(scores, expected)
    matrix = scoring.matrix(LAYOUT, 7)
    matrix.extend(np.arange(7), LAYOUT.pack(clips))
    one = {name: level[:1] for name, level in texts.items()}
    np.testing.assert_allclose(matrix.score(one), scores[0], atol=2e-3)
    np.testing.assert_array_equal(scoring.pooled(clips), pooled(clips, scoring.rates))


def test_one_level_alone_has_a_rate_of_one() -> None:
    scoring = Scoring({"entity": 2.0, "event": 0.5}, "zero", "text_to_video")
    texts, clips = tokens(0, 2), tokens(1, 2)
    assert scoring.at("event") == Scoring({"event": 1.0}, "zero", "text_to_video")
    parts = {name: scoring.at(name).similarity(texts, clips) for name in scoring.rates}
    np.testing.assert_allclose(scoring.similarity(texts, clips), 2 * parts["entity"] + 0.5 * parts["event"], atol=1e-6)
