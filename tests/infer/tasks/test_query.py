"""How scores of several texts become one: joined texts, and what must not be there, on the drawn world too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hbi_infer.api import HBI, Index
from hbi_infer.options import Searching
from hbi_infer.tasks.query import Query, Scale
from hbi_infer.tokens.levels import Levels
from hbi_training.data.shapes.dataset import scenes, write_shapes
from hbi_training.data.shapes.scene import Scene

NOTHING: Levels = {}
"""Tokens that are not looked at."""


def scores_of(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_a_scale_puts_scores_in_standard_deviations() -> None:
    scale = Scale.of(scores_of([1, 3], [10, 30]))
    np.testing.assert_allclose(scale.standard(scores_of([1, 2, 3], [10, 20, 40])), [[-1, 0, 1], [-1, 0, 2]])


def test_scores_that_are_all_the_same_are_0() -> None:
    scale = Scale.of(scores_of([0.3, 0.3 + 1e-8]))
    np.testing.assert_allclose(scale.standard(scores_of([0.3, 0.8])), [[0, 0.5]], atol=1e-6)
    assert Scale.of(np.empty((2, 0), np.float32)).standard(scores_of([1], [2])).tolist() == [[1], [2]]


def test_the_best_part_counts_unless_all_are_wanted() -> None:
    scores = scores_of([0.1, 0.5, 0.3], [0.4, 0.2, 0.3])
    best, parts = Query([NOTHING, NOTHING]).combined(scores)
    np.testing.assert_allclose(best, [0.4, 0.5, 0.3])
    assert parts.tolist() == [1, 0, 0]
    worst, parts = Query([NOTHING, NOTHING], joined=True).combined(scores, scores)
    # (0.1, 0.5, 0.3) and (0.4, 0.2, 0.3) have the means 0.3 and 0.3, and deviations of 0.163 and 0.0816
    np.testing.assert_allclose(worst, [-0.2 / 0.1633, -0.1 / 0.08165, 0], atol=1e-3)
    assert parts.tolist()[:2] == [0, 1]


def test_what_is_unwanted_takes_only_where_it_matches_better_than_usual() -> None:
    scores = scores_of([0.5, 0.4, 0.3], [0.9, 0.1, 0.2], [0.3, 0.3, 0.6])
    combined, parts = Query([NOTHING], unwanted=[NOTHING, NOTHING]).combined(scores, scores)
    unit = np.std([0.5, 0.4, 0.3])
    excess = [(0.9 - 0.4) / np.std([0.9, 0.1, 0.2]), 0, (0.6 - 0.4) / np.std([0.3, 0.3, 0.6])]
    np.testing.assert_allclose(combined, np.array([0.5, 0.4, 0.3]) - unit * np.array(excess), rtol=1e-5)
    assert combined[1] == scores[0, 1]
    assert not parts.any()


def test_what_a_result_is_shown_for() -> None:
    assert list(Query([NOTHING, NOTHING]).shown_for(1)) == [1]
    assert list(Query([NOTHING, NOTHING], joined=True).shown_for(1)) == [0, 1]


NUM_SCENES = 50


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, list[Scene]]]:
    """An index of drawn clips, of the embedded model, and their scenes."""
    root = tmp_path_factory.mktemp("drawn")
    write_shapes(root, 0, 0, NUM_SCENES, seed=5, workers=1)
    with Index.open(root / "videos", HBI.load(device="cpu"), location=root / "index.sqlite") as index:
        index.update(workers=1)
        yield index, list(scenes(5, "test", NUM_SCENES))


def events_of(scene: Scene) -> list[str]:
    """The motion of each thing, in words."""
    things = [scene.things[event.things[0]] for event in scene.events]
    pairs = zip(things, scene.events, strict=True)
    return sorted({f"a {thing.colour} {thing.shape} {event.motion}" for thing, event in pairs})


def number_of(path: Path) -> int:
    return int(path.stem.removeprefix("test_"))


@pytest.mark.slow
def test_on_the_drawn_world_what_must_not_be_there_goes_down(drawn: tuple[Index, list[Scene]]) -> None:
    """Each scene of two events is searched by either of them, with and without the other."""
    index, shown = drawn
    places: list[int] = []
    for number, scene in enumerate(shown):
        for wanted, unwanted in permutations(events_of(scene), 2):
            for without in ((), (unwanted,)):
                matches = index.search(wanted, Searching(top_k=NUM_SCENES, without=without))
                places.append([number_of(match.path) for match in matches].index(number))
    before, after = np.reshape(places, (-1, 2)).T
    assert len(before) > NUM_SCENES
    assert (before < 3).mean() > 0.4, "they are found"
    assert (after < 3).mean() < (before < 3).mean() / 4
    assert (after > before).mean() > 0.9


@pytest.mark.slow
def test_on_the_drawn_world_joined_texts_find_what_matches_both(drawn: tuple[Index, list[Scene]]) -> None:
    index, shown = drawn
    found = {"first": 0, "both": 0}
    for scene in shown:
        if len(events := events_of(scene)) == 2:
            right = {number for number, other in enumerate(shown) if set(events) <= set(events_of(other))}
            for how, query in (("first", events[0]), ("both", events)):
                (best,) = index.search(query, top_k=1)
                found[how] += number_of(best.path) in right
    assert found["both"] > 1.5 * found["first"]
