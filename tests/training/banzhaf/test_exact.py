"""The exact Banzhaf interaction in NumPy and in PyTorch against enumeration."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapiq
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import InputError
from hbi_infer.tokens import banzhaf as in_numpy
from hbi_infer.tokens.banzhaf import DOUBLE, SINGLE, InteractionIndex, Quadrature
from hbi_infer.tokens.similarity import Directions
from hbi_training.banzhaf import exact as in_pytorch
from hbi_training.banzhaf.sampled import (
    RELEASED_SCALE,
)
from tests.builders.banzhaf_games import Floats, in_torch, random_game, subsets, value
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = GOLDEN_FOLDER / "mc_banzhaf.npz"

EXACT = 1e-10  # float64 against enumeration

FLOAT32 = 5e-6  # of the largest value


def enumerated(arrays: Any, probability: float = 0.5, directions: Directions = "both") -> Floats:
    """The interaction by going through every coalition."""
    result = np.zeros(arrays[0].shape)
    for b, (similarity, text, video, text_mask, video_mask) in enumerate(zip(*arrays, strict=True)):
        words, frames = np.flatnonzero(text_mask).tolist(), np.flatnonzero(video_mask).tolist()
        for i, j in product(words, frames):
            other_words, other_frames = [w for w in words if w != i], [f for f in frames if f != j]
            for c, d in product(subsets(other_words), subsets(other_frames)):
                size, others = len(c) + len(d), len(other_words) + len(other_frames)
                chance = probability**size * (1 - probability) ** (others - size)
                with_i, with_j = (*c, i), (*d, j)
                parts = [(with_i, with_j, 1), (c, d, 1), (with_i, d, -1), (c, with_j, -1)]
                for x, y, sign in parts:
                    result[b, i, j] += sign * chance * value(similarity, text, video, x, y, directions)
    return result


@pytest.mark.parametrize("num_text", range(1, 6))
@pytest.mark.parametrize("num_video", range(1, 6))
@pytest.mark.parametrize("peaked", [0.5, 3.0])
@pytest.mark.parametrize("padded", [True, False])
def test_equals_the_enumeration_of_all_coalitions(num_text: int, num_video: int, peaked: float, padded: bool) -> None:
    arrays = random_game(num_text * 10 + num_video, (2, num_text, num_video), peaked=peaked, padded=padded)
    expected = enumerated(arrays)
    np.testing.assert_allclose(in_numpy.banzhaf_interaction(*arrays), expected, rtol=0, atol=EXACT)
    actual = in_pytorch.banzhaf_interaction(*in_torch(arrays))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("probability", [0.5, 0.8])
@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 4, 1), (2, 4, 3)])
def test_the_sum_over_the_text_alone(shape: tuple[int, int, int], probability: float) -> None:
    arrays = random_game(7, shape, peaked=2.0)
    expected = enumerated(arrays, probability, "text_to_video")
    actual = in_numpy.banzhaf_interaction(*arrays, probability=probability, directions="text_to_video")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.8, 0.99])
def test_other_probabilities(probability: float) -> None:
    arrays = random_game(1, (2, 4, 3))
    expected = enumerated(arrays, probability)
    actual = in_numpy.banzhaf_interaction(*arrays, probability=probability)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EXACT)
    in_float64 = in_pytorch.banzhaf_interaction(*in_torch(arrays), probability=probability)
    np.testing.assert_allclose(in_float64.numpy(), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize(("index", "oracle"), [("banzhaf", "BII"), ("shapley", "SII")])
def test_equals_an_independent_library(index: InteractionIndex, oracle: Any) -> None:
    similarity, text, video, *_ = arrays = random_game(5, (1, 4, 5), padded=False)

    def game(coalitions: npt.NDArray[np.bool_]) -> Floats:
        worth = []
        for coalition in coalitions:
            words, frames = np.flatnonzero(coalition[:4]).tolist(), np.flatnonzero(coalition[4:]).tolist()
            worth.append(value(similarity[0], text[0], video[0], words, frames))
        return np.array(worth)

    computer = shapiq.ExactComputer(game, n_players=9)
    found = computer(oracle, order=2)
    expected = np.array([[found[(i, 4 + j)] for j in range(5)] for i in range(4)])
    for actual in (
        in_numpy.banzhaf_interaction(*arrays, index=index),
        in_pytorch.banzhaf_interaction(*in_torch(arrays), index=index).numpy(),
    ):
        np.testing.assert_allclose(actual[0], expected, rtol=0, atol=EXACT)


def test_equals_the_golden_enumeration_of_the_definition() -> None:
    with np.load(GOLDEN) as golden:
        arrays = [golden[name].astype(np.float64) for name in ("R", "text_weight", "video_weight")]
        masks = [golden[name].astype(bool) for name in ("text_mask", "video_mask")]
        expected = golden["textbook_mean"]
    weights = (np.exp(part) for part in arrays[1:])
    actual = in_numpy.banzhaf_interaction(RELEASED_SCALE * arrays[0], *weights, *masks)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_text=st.integers(1, 40),
    num_video=st.integers(1, 20),
    peaked=st.floats(0, 8),
)
def test_float32_torch_and_padding(seed: int, num_text: int, num_video: int, peaked: float) -> None:
    arrays = random_game(seed, (3, num_text, num_video), peaked=peaked)
    exact = in_numpy.banzhaf_interaction(*arrays)
    near = np.abs(exact).max() + 1e-12
    assert not exact[~(arrays[3][:, :, None] & arrays[4][:, None, :])].any()
    single = [part.astype(np.float32) for part in arrays[:3]]
    for actual, tolerance in (
        (in_numpy.banzhaf_interaction(*single, *arrays[3:]), FLOAT32),
        (in_pytorch.banzhaf_interaction(*in_torch(arrays, torch.float32)).numpy(), FLOAT32),
        (in_pytorch.banzhaf_interaction(*in_torch(arrays)).numpy(), EXACT),
    ):
        assert actual.dtype == (np.float32 if tolerance == FLOAT32 else np.float64)
        np.testing.assert_allclose(actual, exact, rtol=0, atol=tolerance * near)
    # More padding changes nothing, whatever lies in it.
    rng = np.random.default_rng(seed)
    wider = [np.pad(arrays[0], ((0, 0), (0, 3), (0, 2)), constant_values=0.9)]
    for side, extra in ((1, 3), (2, 2)):
        junk = rng.uniform(0, 1e3, (3, extra))
        wider.append(np.concatenate([arrays[side], junk], axis=1))
    wider += [np.pad(mask, ((0, 0), (0, extra))) for mask, extra in zip(arrays[3:], (3, 2), strict=True)]
    padded = in_numpy.banzhaf_interaction(*wider)
    np.testing.assert_allclose(padded[:, :num_text, :num_video], exact, rtol=0, atol=EXACT)
    assert not padded[:, num_text:].any()
    assert not padded[:, :, num_video:].any()


@given(cosine=st.floats(-1, 1), weight=st.floats(0, 10))
def test_a_single_token_each(cosine: float, weight: float) -> None:
    one = np.full((1, 1), weight)
    actual = in_numpy.banzhaf_interaction(np.full((1, 1, 1), cosine), one, one)
    assert actual.item() == pytest.approx(max(0.0, cosine), abs=1e-12)


def test_weights_that_underflow_still_count_when_alone() -> None:
    similarity = np.array([[[0.5], [0.25]]])
    weights, one = np.array([[1.0, 0.0]]), np.ones((1, 1))
    expected = enumerated((similarity, np.array([[1.0, 1e-300]]), one, weights >= 0, one > 0))
    np.testing.assert_allclose(in_numpy.banzhaf_interaction(similarity, weights, one), expected, atol=1e-8)
    nothing = in_numpy.banzhaf_interaction(similarity, np.zeros((1, 2)), one)
    np.testing.assert_allclose(nothing, in_numpy.banzhaf_interaction(similarity, np.ones((1, 2)), one))


@pytest.mark.parametrize("small", [1e-6, 1.4e-12, 1e-20, 1e-32])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_two_small_weights_are_compared_with_each_other_whatever_the_others_are(
    small: float, kind: type[np.floating[Any]]
) -> None:
    """Where they alone are in the coalition, only the ratio between them counts."""
    rng = np.random.default_rng(11)
    similarity = rng.uniform(-1, 1, (1, 4, 4))
    text, video = np.array([[1.0, 3 * small, small, 0.2]]), np.array([[small, 0.5, 7 * small, 2.0]])
    everywhere = np.ones((1, 4), bool)
    expected = enumerated((similarity, text, video, everywhere, everywhere))
    arrays = [array.astype(kind) for array in (similarity, text, video)]
    tolerance = EXACT if kind == np.float64 else FLOAT32
    np.testing.assert_allclose(in_numpy.banzhaf_interaction(*arrays), expected, rtol=0, atol=tolerance)
    in_torch_too = in_pytorch.banzhaf_interaction(*map(torch.from_numpy, arrays))
    np.testing.assert_allclose(in_torch_too.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_only_ratios_of_weights_count_even_where_their_sum_is_more_than_the_type_holds(scale: float) -> None:
    arrays = random_game(5, (2, 6, 6), padded=False)
    plain = [array.astype(np.float32) for array in arrays[:3]]
    scaled = [plain[0], *((array / array.max() * np.float32(scale)).astype(np.float32) for array in plain[1:])]
    expected = in_numpy.banzhaf_interaction(*plain)
    for actual in (
        in_numpy.banzhaf_interaction(*scaled),
        in_pytorch.banzhaf_interaction(*map(torch.from_numpy, scaled)).numpy(),
    ):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", [SINGLE, DOUBLE])
def test_the_rule_integrates_what_it_is_for(rule: Quadrature) -> None:
    """The integral of a e^(-s a) is 1 for every weight a that the rule is for; nodes follow the smallest one."""
    counts = []
    for smallest in (1.0, 1e-3, 1e-9, rule.least_weight):
        nodes, measure = rule.nodes(smallest)
        counts.append(len(nodes))
        for weight in np.geomspace(smallest, 1, 20):
            integral = float((weight * np.exp(-nodes * weight)) @ measure)
            assert integral == pytest.approx(1, abs=1e-7 if rule is SINGLE else 1e-13)
    assert counts == sorted(counts)
    assert counts[1] < 50


def test_gradients() -> None:
    similarity, text, video, *masks = in_torch(random_game(7, (2, 4, 3)))
    inputs = [part.requires_grad_() for part in (similarity, text, video)]

    def function(*parts: torch.Tensor) -> torch.Tensor:
        return in_pytorch.banzhaf_interaction(*parts, *masks)

    assert torch.autograd.gradcheck(function, inputs)


def test_half_precision_is_computed_in_single() -> None:
    arrays = in_torch(random_game(3, (2, 4, 3)), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = in_pytorch.banzhaf_interaction(*arrays)
    assert actual.dtype == torch.float32
    expected = in_pytorch.banzhaf_interaction(*(p.double() for p in arrays[:3]), *arrays[3:])
    np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=0, atol=FLOAT32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"similarity": np.zeros((2, 3))}, r"similarity \(2, 3\), .* are not \(B, T, V\), \(B, T\) and \(B, V\)"),
        ({"text_weights": np.ones((2, 4))}, r"text_weights \(2, 4\)"),
        ({"similarity": np.full((2, 3, 2), np.nan)}, "similarity has values that are not finite"),
        ({"video_weights": np.full((2, 2), np.inf)}, "video_weights has values that are not finite"),
        ({"text_weights": -np.ones((2, 3))}, "text_weights has negative values"),
        ({"video_mask": np.array([[True, True], [False, False]])}, "video_mask leaves no real token in item 1"),
        ({"text_mask": np.ones((2, 5), np.bool_)}, r"text_mask \(2, 5\) is not of the shape of text_weights"),
        ({"probability": 1.0}, "probability is 1.0; it must be at least 0 and less than 1"),
        ({"index": "owen"}, "index is 'owen'; known are banzhaf, shapley"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments = {"similarity": np.zeros((2, 3, 2)), "text_weights": np.ones((2, 3)), "video_weights": np.ones((2, 2))}
    with pytest.raises(InputError, match=message):
        in_numpy.banzhaf_interaction(**(arguments | change))


def test_torch_refuses_what_it_can_see_at_once() -> None:
    ones = torch.ones
    with pytest.raises(InputError, match="are not"):
        in_pytorch.banzhaf_interaction(ones(2, 3, 2), ones(2, 4), ones(2, 2))
    mask = ones(2, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="video_mask"):
        in_pytorch.banzhaf_interaction(ones(2, 3, 2), ones(2, 3), ones(2, 2), None, mask)
    nothing = in_pytorch.banzhaf_interaction(
        ones(1, 2, 2), ones(1, 2), ones(1, 2), None, torch.zeros(1, 2, dtype=torch.bool)
    )
    assert not nothing.any()
    assert in_pytorch.banzhaf_interaction(ones(1, 2, 2) * torch.nan, ones(1, 2), ones(1, 2)).isnan().any()
