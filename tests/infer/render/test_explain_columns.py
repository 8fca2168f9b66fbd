"""Columns of the maps: in the order of time, and named by the times of their frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hbi_infer.render.explain_columns import in_time, most_cells, times
from hbi_infer.tasks.explain import Explanation
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
    ordered = in_time(level)
    assert level.frame_groups == ((1, 3), (), (0, 2))
    assert ordered.frame_groups == ((0, 2), (1, 3), ())
    assert ordered.frames == ((0.0, 1.0), (0.5, 1.5), ())
    for field in ("interaction", "cosines", "video_weights"):
        np.testing.assert_array_equal(getattr(ordered, field), getattr(level, field)[..., [2, 0, 1]])
    assert (ordered.words, ordered.similarity, ordered.fidelity) == (level.words, level.similarity, level.fidelity)


def test_a_token_is_as_wide_as_its_frames(made: Explanation) -> None:
    explanation = merged(made)
    assert most_cells(made) == 4
    assert most_cells(explanation) == 5, "a token without a frame takes the width of one"
    assert most_cells(replace(explanation, levels=explanation.levels[:1])) == 4
