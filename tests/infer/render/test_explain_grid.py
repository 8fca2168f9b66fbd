"""Maps as they are shown: columns in the order of time, named by the times of their frames, and what is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hbi_infer.render.explain_grid import Grid, most_cells, times
from hbi_infer.tasks.explain import Explanation
from hbi_infer.tasks.word_map import Phrase
from tests.builders.merged_explanation import merged

SECONDS = [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("group", "text"),
    [((), ""), ((1,), "0.5"), ((2, 3), "1.0-1.5"), ((4, 1, 2, 3), "0.5-2.0"), ((4, 0, 2), "0.0, 1.0, 2.0")],
)
def test_times_are_in_order_and_neighbours_are_a_range(group: tuple[int, ...], text: str) -> None:
    assert times(group, SECONDS) == text


def test_columns_are_ordered_by_their_first_time_and_keep_their_values(made: Explanation) -> None:
    level = merged(made).levels[1]
    grid = Grid.of_level(level)
    assert level.frame_groups == ((1, 3), (), (0, 2))
    assert grid.frame_groups == ((0, 2), (1, 3), ())
    order = [2, 0, 1]
    np.testing.assert_array_equal(grid.values, level.interaction[:, order])
    np.testing.assert_array_equal(grid.hints, level.cosines[:, order])
    assert grid.frame_weights == level.video_weights[order].tolist()
    assert (grid.words, grid.phrases) == (level.words, ())


def test_words_and_frames_of_a_phrase_are_marked_unless_they_are_all(made: Explanation) -> None:
    somewhere = Phrase(text="red", words=(1,), frames=(2, 3), start_seconds=1.0, end_seconds=2.0, is_everywhere=False)
    everywhere = replace(somewhere, words=(2,), frames=(0, 1, 2, 3), is_everywhere=True)
    grid = Grid.of_words(replace(made.word_map, phrases=(somewhere, everywhere)))
    assert grid.words == ("a", "red", "video")
    marked = [(row, column) for row in range(3) for column in range(4) if grid.is_marked(row, column)]
    assert marked == [(1, 2), (1, 3)]


def test_a_token_is_as_wide_as_its_frames(made: Explanation) -> None:
    explanation = merged(made)
    assert most_cells(made) == 4
    assert most_cells(explanation) == 5, "a token without a frame takes the width of one"
    assert most_cells(replace(explanation, levels=explanation.levels[:1])) == 4
