"""Deletion curves against removing pairs one by one, as the definition stands."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.fidelity import NUM_DRAWS, SHARES, measure_fidelity
from hbi_infer.tokens.game import Game
from hbi_infer.tokens.similarity import Directions

Floats = npt.NDArray[np.float64]


def random_game(
    seed: int, num_text: int, num_video: int, *, rate: float = 1.0, directions: Directions = "both"
) -> Game:
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-1, 1, (num_text, num_video))
    text, video = (rng.dirichlet(np.ones(size)) for size in (num_text, num_video))
    interaction = banzhaf_interaction(cosines[None], text[None], video[None], directions=directions)[0]
    return Game(
        cosines=cosines,
        text_weights=text,
        video_weights=video,
        interaction=interaction,
        rate=rate,
        directions=directions,
    )


def single_pair() -> Game:
    one = np.ones(1)
    return Game(cosines=np.array([[0.7]]), text_weights=one, video_weights=one, interaction=np.array([[0.7]]))


def value(games: list[Game], removed: list[tuple[int, int, int]]) -> float:
    """The value of all tokens of all games together, without some (game, word, frame)."""
    total = 0.0
    for number, game in enumerate(games):
        cosines = np.maximum(game.cosines, 0)
        for which, word, frame in removed:
            if which == number:
                cosines[word, frame] = 0
        text_sum, video_sum = game.text_weights @ cosines.max(1), game.video_weights @ cosines.max(0)
        total += game.rate * (0.5 * (text_sum + video_sum) if game.directions == "both" else text_sum)
    return float(total)


def curve(games: list[Game], strengths: list[Floats]) -> Floats:
    """The share lost without the first 0, 1, ... pairs, strongest first."""
    pairs = [(number, *place) for number, game in enumerate(games) for place in np.ndindex(game.cosines.shape)]
    pairs.sort(key=lambda pair: -strengths[pair[0]][pair[1:]])
    full = value(games, [])
    return np.array([1 - value(games, pairs[:count]) / full for count in range(len(pairs) + 1)])


@pytest.mark.parametrize(
    "games",
    [
        [random_game(0, 4, 3)],
        [single_pair()],
        [random_game(1, 4, 3, directions="text_to_video")],
        [random_game(2, 5, 4, rate=2.0), random_game(3, 2, 3, rate=0.5)],
    ],
)
def test_equals_removing_pair_by_pair(games: list[Game]) -> None:
    fidelity = measure_fidelity(games)
    assert fidelity is not None
    assert fidelity.num_pairs == sum(game.cosines.size for game in games)
    for measured, strengths in (
        (fidelity.by_interaction, [game.rate * game.interaction for game in games]),
        (fidelity.by_magnitude, [abs(game.rate * game.interaction) for game in games]),
        (fidelity.by_cosine, [game.cosines for game in games]),
    ):
        expected = curve(games, strengths)
        counts = [int(np.ceil(share * fidelity.num_pairs - 1e-9)) for share in SHARES]
        assert counts[1] == fidelity.num_removed
        np.testing.assert_allclose(measured.curve, expected[counts], atol=1e-12)
        assert measured.drop == pytest.approx(expected[fidelity.num_removed])
        assert measured.area == pytest.approx(np.trapezoid(expected, dx=1 / fidelity.num_pairs))
        assert measured.drop_error == measured.area_error == 0


def test_random_orders_are_the_same_every_time_and_have_a_standard_error() -> None:
    games = [random_game(4, 6, 5)]
    first, second = measure_fidelity(games), measure_fidelity(games)
    assert first is not None
    assert first == second
    random = first.at_random
    assert 0 < random.drop_error < 0.1
    assert 0 < random.area_error < 0.1
    assert random.curve[0] == 0
    assert random.curve[-1] == pytest.approx(1)
    assert list(random.curve) == sorted(random.curve)


def test_one_removal_in_random_orders_is_the_mean_over_pairs() -> None:
    games = [random_game(5, 3, 3)]
    fidelity = measure_fidelity(games)
    assert fidelity is not None
    assert fidelity.num_removed == 1
    singles = [1 - value(games, [(0, *place)]) / value(games, []) for place in np.ndindex(3, 3)]
    assert abs(fidelity.at_random.drop - np.mean(singles)) < 4 * fidelity.at_random.drop_error
    assert fidelity.at_random.drop_error == pytest.approx(np.std(singles) / NUM_DRAWS**0.5, rel=0.3)


def test_nothing_to_lose() -> None:
    game = random_game(6, 3, 2)
    assert measure_fidelity([Game(**{**vars(game), "cosines": -abs(game.cosines)})]) is None


def test_text_and_json() -> None:
    fidelity = measure_fidelity([random_game(0, 4, 3)])
    assert fidelity is not None
    assert str(fidelity).startswith("without the top 2 of 12 pairs the similarity falls by ")
    document = fidelity.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["shares"] == list(SHARES)
    assert document["by_magnitude"]["curve"] == list(fidelity.by_magnitude.curve)
