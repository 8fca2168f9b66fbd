"""Draws an explanation: the map of words, then a heat map for each level; words are to the left, frames on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hbi_infer.render.explain_grid import Grid, most_cells, times
from hbi_infer.render.heat_scale import BLACK, HeatScale
from hbi_infer.render.picture import (
    GREY,
    MARGIN,
    Paragraph,
    blank,
    broken_at_blanks,
    cell_width,
    fonts_for,
    framed,
    png,
    stacked,
    text_block,
)
from hbi_infer.render.stdout import clock, printable
from hbi_infer.tasks.explain import MEANING, Explanation, LevelExplanation, read_thumbnails
from hbi_infer.tasks.word_map import Phrase

Thumbnails: TypeAlias = npt.NDArray[np.uint8] | None

GAP = 6
WORDS_RIGHT = 190
WEIGHT_RIGHT = 238
MAP_LEFT = 250
NARROWEST = 900
CELL_HEIGHT = 26
LEGEND_WIDTH = 200
MARK_WIDTH = 3
TITLE, HEADING, TEXT, SMALL = 25, 19, 14, 12


def picture(explanation: Explanation) -> bytes:
    """Returns an explanation as a PNG; frames that cannot be decoded are shown as times only.

    Warns:
        NoFramesWarning: The frames cannot be decoded.
    """
    thumbnails = read_thumbnails(explanation, cell_width(most_cells(explanation)) - GAP)
    return png(draw_picture(explanation, thumbnails))


def draw_picture(explanation: Explanation, thumbnails: Thumbnails) -> Image.Image:
    """Draws an explanation of a clip of F frames.

    Args:
        explanation: Maps to draw.
        thumbnails: (F, H, W, 3) uint8, no wider than a cell; None to show times only.
    """
    page = _Page(explanation)
    words = page.words(explanation, thumbnails)
    panels = [page.level(level, explanation.frame_seconds, thumbnails) for level in explanation.levels]
    return framed(stacked([page.header(explanation), words, *panels, page.footer(explanation)], MARGIN))


class _Page:
    """Holds the width, the cell width and the typeface that all parts of a picture share."""

    def __init__(self, explanation: Explanation) -> None:
        self._cell_width = cell_width(most_cells(explanation))
        grids = [Grid.of_words(explanation.word_map), *map(Grid.of_level, explanation.levels)]
        map_width = max(self._columns(grid)[-1][1] for grid in grids)
        self._width = max(map_width, NARROWEST)
        self._font = fonts_for(printable(f"{explanation.query}{explanation.video.name}{''.join(explanation.words)}"))

    def header(self, explanation: Explanation) -> Image.Image:
        """Draws the query, the clip and its score."""
        clip = f"clip {explanation.clip} of {explanation.num_clips}, " if explanation.num_clips > 1 else ""
        span = f"{clip}{clock(explanation.start_seconds)} - {clock(explanation.end_seconds)}"
        facts = f"{printable(explanation.video.name)} · {span} · score {explanation.score:.3f}"
        return self._block((f"“{printable(explanation.query)}”", TITLE, BLACK), (facts, TEXT, GREY))

    def footer(self, explanation: Explanation) -> Image.Image:
        """Draws the meaning of the numbers, the fidelity of all levels together, and remarks."""
        fidelity = [f"Fidelity of all levels: {explanation.fidelity}."] if explanation.fidelity else []
        remarks = [f"{remark}." for remark in explanation.remarks]
        return self._block(*((line, SMALL, GREY) for line in [MEANING, *fidelity, *remarks]))

    def words(self, explanation: Explanation, thumbnails: Thumbnails) -> Image.Image:
        """Draws the map of words under the frames, thumbnails (F, H, W, 3) uint8, with the sentence that says it."""
        grid = Grid.of_words(explanation.word_map)
        scale = HeatScale.of(grid.values)
        return stacked(
            [
                self._block((printable(explanation.word_map.sentence), HEADING, BLACK)),
                self._legend("", "", scale, explanation.word_map.method),
                *self._map(grid, scale, explanation.frame_seconds, thumbnails),
                self._block((explanation.word_map.meaning, SMALL, GREY)),
            ],
            GAP,
        )

    def level(self, level: LevelExplanation, frame_seconds: Sequence[float], thumbnails: Thumbnails) -> Image.Image:
        """Draws the map of one level under its frames, thumbnails (F, H, W, 3) uint8."""
        scale = HeatScale.of(level.interaction)
        facts = f"similarity {level.similarity:.3f}, rate {level.rate:g}"
        parts = [self._legend(level.name, facts, scale, "interaction")]
        parts += self._map(Grid.of_level(level), scale, frame_seconds, thumbnails)
        if level.fidelity:
            parts.append(self._block((f"Fidelity: {level.fidelity}.", SMALL, GREY)))
        return stacked(parts, GAP)

    def _map(
        self, grid: Grid, scale: HeatScale, frame_seconds: Sequence[float], thumbnails: Thumbnails
    ) -> list[Image.Image]:
        """Draws the frames, thumbnails (F, H, W, 3) uint8, and the cells below them."""
        frames = [] if thumbnails is None else [self._frames(grid, thumbnails)]
        return [stacked([*frames, self._times(grid, frame_seconds)], 0), self._cells(grid, scale)]

    def _legend(self, name: str, facts: str, scale: HeatScale, values: str) -> Image.Image:
        """Draws the name of a map and, at the right, the values of the colours."""
        sheet, draw = self._sheet(HEADING + 4 * GAP)
        draw.text((0, HEADING), name, BLACK, self._font(HEADING), anchor="ls")
        left = draw.textlength(name, self._font(HEADING)) + 3 * GAP
        draw.text((left, HEADING), facts, GREY, self._font(TEXT), anchor="ls")
        left = self._width - LEGEND_WIDTH
        for step in range(LEGEND_WIDTH):
            colour = scale.colour(scale.limit * (2 * step / (LEGEND_WIDTH - 1) - 1))
            draw.line([(left + step, GAP), (left + step, HEADING)], colour)
        bottom = HEADING + GAP + SMALL
        for place, value, anchor in ((0, -scale.limit, "ls"), (0.5, 0.0, "ms"), (1, scale.limit, "rs")):
            text = scale.number(value)
            draw.text((left + place * LEGEND_WIDTH, bottom), text, GREY, self._font(SMALL), anchor=anchor)
        draw.text((left - 2 * GAP, HEADING), values, GREY, self._font(SMALL), anchor="rs")
        return sheet

    def _frames(self, grid: Grid, thumbnails: npt.NDArray[np.uint8]) -> Image.Image:
        """Draws the frames of each token side by side."""
        sheet, _ = self._sheet(thumbnails.shape[1])
        for (left, _), group in zip(self._columns(grid), grid.frame_groups, strict=True):
            for number, place in enumerate(group):
                image = Image.fromarray(thumbnails[place])
                centre = left + (number + 0.5) * self._cell_width
                sheet.paste(image, (round(centre - image.width / 2), 0))
        return sheet

    def _times(self, grid: Grid, frame_seconds: Sequence[float]) -> Image.Image:
        """Writes the times of each column's frames, and its weight."""
        font = self._font(SMALL)
        columns = self._columns(grid)
        labels = [
            broken_at_blanks(times(group, frame_seconds), font, right - left)
            for (left, right), group in zip(columns, grid.frame_groups, strict=True)
        ]
        line = SMALL + GAP
        weighs = grid.frame_weights is not None
        sheet, draw = self._sheet(max(map(len, labels)) * line + GAP + weighs * SMALL)
        bottom = sheet.height - GAP
        draw.text((WORDS_RIGHT, SMALL), "seconds", GREY, font, anchor="rs")
        if weighs:
            draw.text((WEIGHT_RIGHT, bottom), "weight", GREY, font, anchor="rs")
        weights: Sequence[float | None] = grid.frame_weights or [None] * len(columns)
        for (left, right), lines, weight in zip(columns, labels, weights, strict=True):
            centre = (left + right) / 2
            for number, text in enumerate(lines):
                draw.text((centre, SMALL + number * line), text, GREY, font, anchor="ms")
            if weight is not None:
                draw.text((centre, bottom), f"{weight:.2f}", GREY, font, anchor="ms")
        return sheet

    def _cells(self, grid: Grid, scale: HeatScale) -> Image.Image:
        """Draws the words with their weights and values, and a frame around those that belong together."""
        font = self._font(TEXT)
        labels = [broken_at_blanks(printable(words), font, WORDS_RIGHT) for words in grid.words]
        heights = [CELL_HEIGHT + (len(lines) - 1) * (TEXT + 4) for lines in labels]
        tops = [sum(heights[:row]) for row in range(len(heights) + 1)]
        sheet, draw = self._sheet(tops[-1])
        weights: Sequence[float | None] = grid.word_weights or [None] * len(labels)
        for row, (lines, weight) in enumerate(zip(labels, weights, strict=True)):
            middle = (tops[row] + tops[row + 1]) / 2 - 1
            place = WORDS_RIGHT, middle
            draw.multiline_text(place, "\n".join(lines), BLACK, font, anchor="rm", align="right", spacing=4)
            if weight is not None:
                draw.text((WEIGHT_RIGHT, middle), f"{weight:.2f}", GREY, self._font(SMALL), anchor="rm")
            for (left, right), value in zip(self._columns(grid), grid.values[row].tolist(), strict=True):
                draw.rectangle([left, tops[row], right - 2, tops[row + 1] - 2], scale.colour(value))
                centre = (left + right - 2) / 2
                draw.text((centre, middle), scale.number(value), scale.ink(value), self._font(SMALL), anchor="mm")
        for phrase in grid.phrases:
            self._mark(draw, grid, phrase, tops)
        return sheet

    def _mark(self, draw: ImageDraw.ImageDraw, grid: Grid, phrase: Phrase, tops: Sequence[int]) -> None:
        """Draws a frame around the words and the moment of a phrase; words between them are inside."""
        columns = self._columns(grid)
        corners = [
            (columns[phrase.frames[0]][0], tops[phrase.words[0]]),
            (columns[phrase.frames[-1]][1] - 2, tops[phrase.words[-1] + 1] - 2),
        ]
        draw.rectangle(corners, outline=BLACK, width=MARK_WIDTH)

    def _columns(self, grid: Grid) -> list[tuple[int, int]]:
        """Returns the left and right edge of each column."""
        columns, left = [], MAP_LEFT
        gap = GAP if any(len(group) > 1 for group in grid.frame_groups) else 0
        for group in grid.frame_groups:
            right = left + max(len(group), 1) * self._cell_width
            columns.append((left, right))
            left = right + gap
        return columns

    def _block(self, *paragraphs: Paragraph) -> Image.Image:
        return text_block(paragraphs, self._width, self._font)

    def _sheet(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        return blank(self._width, height)
