from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.tokens.layout import TokenLayout
from hbi_infer.tokens.levels import Levels, LevelTokens
from hbi_infer.tokens.similarity import (
    CHUNK_CLIPS,
    ClipMatrix,
    Directions,
    PaddedPartner,
    best_cosines,
    similarity,
    top,
)
from tests.paths import GOLDEN as GOLDEN_FOLDER

WIDTH = 8
RATES = {"entity": 1.0, "event": 0.25}
VIDEO_SIZES = {"entity": 5, "event": 2}
TEXT_SIZES = {"entity": 7, "event": 3}
LAYOUT = TokenLayout(tuple(VIDEO_SIZES.items()), WIDTH)
GOLDEN = GOLDEN_FOLDER / "wti.npz"


def random_levels(rng: np.random.Generator, batch: int, sizes: dict[str, int], padding: float = 0.4) -> Levels:
    """Tokens of any length; about that share of them padding, but never the first."""
    levels = {}
    for name, num_tokens in sizes.items():
        weights = rng.random((batch, num_tokens)).astype(np.float32) + 0.1
        weights[:, 1:] *= rng.random((batch, num_tokens - 1)) >= padding
        tokens = rng.standard_normal((batch, num_tokens, WIDTH)).astype(np.float32)
        levels[name] = LevelTokens(tokens * 5, weights / weights.sum(axis=1, keepdims=True))
    return levels


def item(levels: Levels, row: int) -> Levels:
    return {name: LevelTokens(level.tokens[[row]], level.weights[[row]]) for name, level in levels.items()}


def score_by_loops(
    text: Levels, video: Levels, padded_partner: PaddedPartner, directions: Directions = "both"
) -> float:
    """The formula for one pair, token by token."""
    score = 0.0
    for name, rate in RATES.items():
        sides = []
        for one, other in ((text[name], video[name]), (video[name], text[name])):
            half = 0.0
            for token, weight in zip(one.tokens[0], one.weights[0], strict=True):
                if weight == 0:
                    continue
                best = -np.inf
                for partner, partner_weight in zip(other.tokens[0], other.weights[0], strict=True):
                    if partner_weight > 0:
                        cosine = token @ partner / np.linalg.norm(token) / np.linalg.norm(partner)
                        best = max(best, cosine)
                    elif padded_partner == "zero":
                        best = max(best, 0.0)
                half += weight * best
            sides.append(half)
        score += rate * (0.5 * sum(sides) if directions == "both" else sides[0])
    return score


@given(
    seed=st.integers(0, 2**32 - 1),
    padded_partner=st.sampled_from(["ignore", "zero"]),
    directions=st.sampled_from(["both", "text_to_video"]),
)
@settings(max_examples=80, deadline=None)
def test_the_reference_and_the_matrix_agree_with_loops(
    seed: int, padded_partner: PaddedPartner, directions: Directions
) -> None:
    rng = np.random.default_rng(seed)
    text, video = random_levels(rng, 2, TEXT_SIZES), random_levels(rng, 3, VIDEO_SIZES)
    expected = [
        [score_by_loops(item(text, i), item(video, j), padded_partner, directions) for j in range(3)] for i in range(2)
    ]
    found = similarity(text, video, RATES, padded_partner=padded_partner, directions=directions)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    matrix = ClipMatrix(LAYOUT, RATES, 3, padded_partner=padded_partner, directions=directions)
    matrix.extend(np.arange(3), LAYOUT.pack(video))
    for row in range(2):
        # Half precision of a unit token: 2**-11 of each of its values.
        np.testing.assert_allclose(matrix.score(item(text, row)), expected[row], atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1), extra=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_padding_changes_no_score(seed: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    text, video = random_levels(rng, 2, TEXT_SIZES), random_levels(rng, 3, VIDEO_SIZES)

    def padded(levels: Levels) -> Levels:
        return {
            name: LevelTokens(
                np.concatenate([level.tokens, rng.standard_normal((len(level), extra, WIDTH))], axis=1),
                np.pad(level.weights, ((0, 0), (0, extra))),
            )
            for name, level in levels.items()
        }

    expected = similarity(text, video, RATES)
    np.testing.assert_allclose(similarity(padded(text), padded(video), RATES), expected, atol=1e-5)
    layout = TokenLayout(tuple((name, size + extra) for name, size in VIDEO_SIZES.items()), WIDTH)
    matrix = ClipMatrix(layout, RATES, 3)
    matrix.extend(np.arange(3), layout.pack(padded(video)))
    for row in range(2):
        np.testing.assert_allclose(matrix.score(item(padded(text), row)), expected[row], atol=1e-3)


def test_one_text_token_takes_the_best_frame_where_only_the_text_looks() -> None:
    text = {"entity": LevelTokens(np.array([[[1.0, 0]]]), np.ones((1, 1)))}
    frames = LevelTokens(np.array([[[0.0, 1], [2, 0], [0, -1]]]), np.full((1, 3), 1 / 3))
    assert similarity(text, {"entity": frames}, {"entity": 1.0}, directions="text_to_video").item() == 1
    assert similarity(text, {"entity": frames}, {"entity": 1.0}).item() == pytest.approx(0.5 * (1 + 1 / 3))


def test_many_clips_in_uneven_batches_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    num_clips = CHUNK_CLIPS * 9 + 7
    video = LAYOUT.pack(random_levels(rng, num_clips, VIDEO_SIZES))
    ids = np.arange(num_clips) * 3
    matrix = ClipMatrix(LAYOUT, RATES, num_clips + 1)
    matrix.extend(ids[:5], video[:5])
    matrix.extend(ids[5:], video[5:])
    assert (matrix.ids == ids).all()
    text = random_levels(rng, 1, TEXT_SIZES)
    np.testing.assert_allclose(matrix.score(text), similarity(text, LAYOUT.unpack(video), RATES)[0], atol=1e-3)


def test_an_empty_matrix_gives_no_scores() -> None:
    matrix = ClipMatrix(LAYOUT, RATES, 0)
    assert matrix.score(random_levels(np.random.default_rng(0), 1, TEXT_SIZES)).shape == matrix.ids.shape == (0,)


def test_a_level_of_rate_zero_counts_nothing() -> None:
    rng = np.random.default_rng(0)
    text, video = random_levels(rng, 1, TEXT_SIZES), random_levels(rng, 4, VIDEO_SIZES)
    matrix = ClipMatrix(LAYOUT, {"entity": 1.0, "event": 0.0}, 4)
    matrix.extend(np.arange(4), LAYOUT.pack(video))
    np.testing.assert_allclose(matrix.score(text), similarity(text, video, {"entity": 1.0})[0], atol=1e-3)


def golden_weights(
    golden: npt.NDArray[np.void], side: str, tokens: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The released scorer: Linear, ReLU, Linear, softmax over the real tokens."""

    def weight(name: str) -> npt.NDArray[np.float32]:
        array: npt.NDArray[np.float32] = golden[f"{side}_weight_fc.{name}"]
        return array

    hidden = np.maximum(tokens @ weight("0.weight").T + weight("0.bias"), 0)
    scores = (hidden @ weight("2.weight").T + weight("2.bias"))[..., 0]
    scores = np.where(mask, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights: npt.NDArray[np.float32] = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


@pytest.mark.parametrize("case", ["wti.entity", "neg"])
def test_the_released_entity_scores_come_out_where_padding_counts_as_zero(case: str) -> None:
    with np.load(GOLDEN) as golden:
        prefix = "neg." if case == "neg" else ""
        texts, videos = golden[prefix + "text"], golden[prefix + "video"]
        text_mask, video_mask = golden["text_mask"][: len(texts)], golden["video_mask"][: len(videos)]
        text = {"entity": LevelTokens(texts, golden_weights(golden, "text", texts, text_mask))}
        video = {"entity": LevelTokens(videos, golden_weights(golden, "video", videos, video_mask))}
        expected = golden[f"{case}.sim"]
    scores = similarity(text, video, {"entity": 1.0}, padded_partner="zero")
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_best_cosines_tells_how_near_each_token_of_a_clip_is() -> None:
    clip = LevelTokens(np.array([[[2.0, 0], [0, 3], [-1, 0]]]), np.full((1, 3), 1 / 3))
    query = LevelTokens(np.array([[[5.0, 0], [0, 1]]]), np.array([[1.0, 0]]))  # the second token is padding
    np.testing.assert_allclose(best_cosines(query, clip), [1, 0, -1], atol=1e-6)


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([0.1, 0.9, 0.5], 2, [1, 2]),
        ([0.5, 0.9, 0.5, 0.5], 3, [1, 0, 2]),
        ([0.5, 0.5], 5, [0, 1]),
        ([], 3, []),
        ([0.5, 0.5, 0.5], 1, [0]),
    ],
)
def test_top_breaks_ties_by_position(scores: list[float], k: int, expected: list[int]) -> None:
    assert top(np.array(scores, np.float32), k).tolist() == expected


def large() -> Levels:
    return random_levels(np.random.default_rng(0), 1, VIDEO_SIZES)


@pytest.mark.parametrize("padded_partner", ["ignore", "zero"])
def test_queries_of_any_length_are_scored_each_as_alone(padded_partner: PaddedPartner) -> None:
    """In one pass, with more tokens than a product takes at once, and with padding where a query has some."""
    rng = np.random.default_rng(3)
    clips = random_levels(rng, 70, VIDEO_SIZES)
    matrix = ClipMatrix(LAYOUT, RATES, 70, padded_partner=padded_partner)
    matrix.extend(np.arange(70), LAYOUT.pack(clips))
    sizes = [{"entity": 2 + number % 9, "event": 3} for number in range(20)]
    queries = [random_levels(rng, 1, size, padding=0.3 * (number % 2)) for number, size in enumerate(sizes)]
    together = matrix.score_each(queries)
    for query, scores in zip(queries, together, strict=True):
        np.testing.assert_allclose(matrix.score(query), scores, atol=1e-5)
