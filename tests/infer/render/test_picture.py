"""Parts of a picture: letters, lines and sheets."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFont

from hbi_infer.render.picture import (
    CELL_WIDTHS,
    LINE,
    MARGIN,
    blank,
    broken_at_blanks,
    cell_width,
    fonts_for,
    framed,
    png,
    stacked,
    text_block,
)

INK = "#000000"


def test_the_built_in_font_draws_what_it_has() -> None:
    font = fonts_for("plain text")(14)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.getname() == ImageFont.load_default(14).getname()  # type: ignore[union-attr]
    assert fonts_for("красный")(14).getlength("красный") > 0


def test_cells_share_the_width_within_limits() -> None:
    least, most = CELL_WIDTHS
    assert (cell_width(1), cell_width(1000)) == (most, least)
    assert least < cell_width(12) < most


def test_a_text_is_broken_at_blanks_into_lines_that_fit() -> None:
    font = fonts_for()(14)
    lines = broken_at_blanks("one two three four five six " + "x" * 50, font, 80)
    assert " ".join(lines) == "one two three four five six " + "x" * 50
    assert all(font.getlength(line) <= 80 for line in lines[:-1])
    assert lines[-1] == "x" * 50, "one word is not broken"
    assert broken_at_blanks("", font, 80) == [""]


def test_a_block_has_a_line_for_each_line() -> None:
    block = text_block([("title", 20, INK), ("one two three", 10, INK)], 30, fonts_for())
    lines = len(broken_at_blanks("one two three", fonts_for()(10), 30))
    assert block.size == (30, round(LINE * 20) + lines * round(LINE * 10))
    assert (np.asarray(block) < 128).any()


def test_sheets_stand_below_each_other_in_a_frame() -> None:
    dark = Image.new("RGB", (4, 3), INK)
    sheet = stacked([dark, blank(4, 2)[0], dark], 1)
    assert sheet.size == (4, 10)
    assert np.flatnonzero(np.asarray(sheet)[:, 0, 0] == 0).tolist() == [0, 1, 2, 7, 8, 9]
    image = Image.open(io.BytesIO(png(framed(sheet))))
    assert (image.format, image.size) == ("PNG", (4 + 2 * MARGIN, 10 + 2 * MARGIN))
    assert np.asarray(image)[MARGIN, MARGIN].tolist() == [0, 0, 0]
