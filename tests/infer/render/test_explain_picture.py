"""An explanation as a picture."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hbi_infer.render.explain_grid import most_cells
from hbi_infer.render.explain_picture import CELL_HEIGHT, GAP, MAP_LEFT, NARROWEST, draw_picture, picture
from hbi_infer.render.heat_scale import HeatScale
from hbi_infer.render.picture import CELL_WIDTHS, MARGIN, cell_width
from hbi_infer.tasks.explain import Explanation
from tests.builders.merged_explanation import merged


def test_a_picture_has_a_column_for_each_frame(made: Explanation) -> None:
    image = Image.open(io.BytesIO(picture(made)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.width == 2 * MARGIN + max(NARROWEST, MAP_LEFT + 4 * cell_width(most_cells(made)))
    # The frames are there: the first is green, the last, over the hottest cell, red.
    pixels = np.asarray(image).astype(int)
    width = cell_width(most_cells(made))
    top = MARGIN + np.flatnonzero(np.ptp(pixels[MARGIN:, MARGIN + MAP_LEFT + width // 2], axis=1) > 150)[0]
    first, last = (pixels[top + 10, MARGIN + MAP_LEFT + round((place + 0.5) * width)] for place in (0, 3))
    assert first.argmax() == 1
    assert last.argmax() == 0
    without = draw_picture(made, None)
    assert without.width == image.width
    assert image.height - without.height == 3 * (width - GAP), "a row of frames for the words and each of two levels"


def test_a_phrase_is_framed_in_the_map_of_words(made: Explanation) -> None:
    (red,) = [phrase for phrase in made.word_map.phrases if phrase.text == "red"]
    framed, bare = (
        np.asarray(draw_picture(replace(made, word_map=replace(made.word_map, phrases=phrases)), None)).astype(int)
        for phrases in ((red,), (replace(red, is_everywhere=True),))
    )
    width = cell_width(most_cells(made))
    # The sentences above the maps differ too, but lie higher than the cell.
    rows, columns = np.nonzero(np.abs(framed - bare)[:, MARGIN + MAP_LEFT :].max(axis=-1))
    inside = columns[rows > rows.max() - CELL_HEIGHT]
    assert (inside.min(), inside.max()) == (3 * width, 4 * width - 2)


def test_a_picture_of_many_frames_and_any_letters(made: Explanation, tmp_path: Path) -> None:
    level = made.levels[0]
    many = 60
    wide = replace(
        level,
        frames=((0.0,),) * many,
        frame_groups=((0,),) * many,
        interaction=np.zeros((len(level.words), many)),
        cosines=np.zeros((len(level.words), many)),
        video_weights=np.full(many, 1 / many),
        words=("ein sehr langes Wort " * 9, *level.words[1:]),
    )
    strange = replace(made, levels=(wide,), query="красный \x1b 红 " * 30, video=tmp_path / os.fsdecode(b"\xff.mp4"))
    assert cell_width(most_cells(strange)) == CELL_WIDTHS[0]
    assert draw_picture(strange, None).width == 2 * MARGIN + MAP_LEFT + many * CELL_WIDTHS[0]


def test_columns_of_a_picture_are_in_the_order_of_time(made: Explanation) -> None:
    """The colours of the merged level's only row of cells, read from left to right."""
    explanation = merged(made)
    pixels = np.asarray(draw_picture(explanation, None))
    scale = HeatScale.of(explanation.levels[1].interaction)
    width, top = cell_width(most_cells(explanation)), pixels.shape[0]
    wanted = [tuple(bytes.fromhex(scale.colour(value)[1:])) for value in (0.75, 0.25, -0.5)]
    places = [MARGIN + MAP_LEFT + 4 + column for column in (0, 2 * width + GAP, 4 * width + 2 * GAP)]
    rows = [[tuple(pixels[row, place]) for place in places] for row in range(top)]
    assert wanted in rows


def test_a_long_list_of_times_is_broken_into_lines(made: Explanation) -> None:
    """Every other frame of a long clip, in narrow cells."""
    seconds = tuple(100_000.0 + step for step in range(60))
    level = replace(made.levels[1], frame_groups=(tuple(range(0, 60, 2)), tuple(range(1, 60, 2))))
    level = replace(
        level,
        frames=tuple(tuple(seconds[place] for place in group) for group in level.frame_groups),
        interaction=np.zeros((1, 2)),
        cosines=np.zeros((1, 2)),
        video_weights=np.array([0.5, 0.5]),
    )
    long = replace(made, levels=(level,), frame_seconds=seconds)
    short = replace(long, frame_seconds=tuple(0.1 * step for step in range(60)))
    assert draw_picture(long, None).height > draw_picture(short, None).height
