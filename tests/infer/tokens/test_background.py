"""Backgrounds: moments of best scores against drawing them, what a match depends on, and documents that are refused."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbi_infer.errors import InputError
from hbi_infer.tokens.background import MOST_CLIPS, SAMPLE_CLIPS, Background, sample


def test_moments_are_those_of_all_choices_of_clips() -> None:
    scores = np.random.default_rng(0).normal(1, 0.3, (7, 6))
    background = Background.of(scores)
    assert background.num_clips == (1, 2, 4, 6)
    for number, mean, deviation in zip(background.num_clips, background.means, background.deviations, strict=True):
        best = [row[list(chosen)].max() for row in scores for chosen in combinations(range(6), number)]
        assert (mean, deviation) == (pytest.approx(np.mean(best)), pytest.approx(np.std(best)))


def test_match_is_the_share_of_sentences_that_find_less() -> None:
    rng = np.random.default_rng(1)
    background = Background.of(rng.normal(0, 1, (400, 200)))
    others = rng.normal(0, 1, (4000, 50)).max(axis=1)
    for percent in (90, 97):
        assert background.match(float(np.percentile(others, percent)), 50) == pytest.approx(percent / 100, abs=0.03)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20), st.integers(1, 10**6))
def test_match_grows_with_the_score_and_falls_with_the_number_of_clips(scores: list[float], num_clips: int) -> None:
    background = Background.of(np.random.default_rng(2).normal(0, 1, (20, 300)))
    matches = [background.match(score, num_clips) for score in sorted(scores)]
    assert matches == sorted(matches)
    assert all(0 <= match <= 1 for match in matches)
    # Far out the best of two normally distributed scores is rarer than a normal one of its mean and deviation.
    likely = [score for score in scores if score < 2]
    assert all(background.match(score, num_clips) >= background.match(score, 2 * num_clips) for score in likely)


def test_background_of_many_clips_is_that_of_the_most() -> None:
    background = Background.of(np.random.default_rng(3).normal(0, 1, (20, SAMPLE_CLIPS)))
    assert background.num_clips[-1] == MOST_CLIPS
    assert background.match(2.0, 100_000) == background.match(2.0, MOST_CLIPS) < background.match(2.0, 10)


def test_clip_that_matches_everything_raises_what_a_query_must_reach() -> None:
    scores = np.random.default_rng(4).normal(0, 0.1, (50, 20))
    without = Background.of(scores).match(0.5, 20)
    scores[:, 3] += 0.4
    assert Background.of(scores).match(0.5, 20) < 0.9 < 0.99 < without


def test_one_clip_and_equal_scores_have_a_background() -> None:
    background = Background.of(np.full((3, 1), 0.25))
    assert (background.match(0.2, 1), background.match(0.3, 1)) == (0.0, 1.0)


@pytest.mark.parametrize("scores", [np.empty((0, 3)), np.empty((3, 0)), np.array([[math.nan]])])
def test_scores_that_say_nothing_are_refused(scores: npt.NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="the background needs finite scores"):
        Background.of(scores)


def test_document_gives_the_background_back() -> None:
    background = Background.of(np.random.default_rng(5).normal(0, 1, (9, 30)))
    assert Background.from_json(json.loads(json.dumps(background.to_json()))) == background


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"num_clips": [1], "means": [0.1]},
        {"num_clips": [2], "means": [0.1], "deviations": [0.1]},
        {"num_clips": [1, 1], "means": [0.1, 0.1], "deviations": [0.1, 0.1]},
        {"num_clips": [1], "means": [0.1, 0.2], "deviations": [0.1]},
        {"num_clips": [1], "means": ["x"], "deviations": [0.1]},
        {"num_clips": [1], "means": [math.nan], "deviations": [0.1]},
        {"num_clips": [1], "means": [0.1], "deviations": [0.0]},
        {"num_clips": [], "means": [], "deviations": []},
    ],
)
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(InputError, match="the background"):
        Background.from_json(document)


@pytest.mark.parametrize(("num_clips", "size"), [(0, 0), (1, 1), (SAMPLE_CLIPS, SAMPLE_CLIPS), (10_000, SAMPLE_CLIPS)])
def test_sample_is_spread_evenly(num_clips: int, size: int) -> None:
    positions = sample(num_clips)
    assert len(positions) == len(set(positions.tolist())) == size
    if num_clips > SAMPLE_CLIPS:
        assert set(np.diff(positions)) <= {num_clips // size, num_clips // size + 1}
    assert all(0 <= position < num_clips for position in positions)
