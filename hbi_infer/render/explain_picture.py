"""Draws an explanation: a heat map for each level, the words to its left and the frames on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hbi_infer.render.explain_columns import in_time, most_cells, times
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

Thumbnails: TypeAlias = npt.NDArray[np.uint8] | None

GAP = 6
WORDS_RIGHT = 190
WEIGHT_RIGHT = 238
MAP_LEFT = 250
NARROWEST = 900
CELL_HEIGHT = 26
LEGEND_WIDTH = 200
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
    panels = [page.panel(in_time(level), explanation.frame_seconds, thumbnails) for level in explanation.levels]
    return framed(stacked([page.header(explanation), *panels, page.footer(explanation)], MARGIN))


class _Page:
    """Holds the width, the cell width and the typeface that all parts of a picture share."""

    def __init__(self, explanation: Explanation) -> None:
        self._cell_width = cell_width(most_cells(explanation))
        map_width = max(self._columns(level)[-1][1] for level in explanation.levels)
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

    def panel(self, level: LevelExplanation, frame_seconds: Sequence[float], thumbnails: Thumbnails) -> Image.Image:
        """Draws the map of one level under its frames, thumbnails (F, H, W, 3) uint8."""
        scale = HeatScale.of(level.interaction)
        frames = [] if thumbnails is None else [self._frames(level, thumbnails)]
        head = stacked([*frames, self._times(level, frame_seconds)], 0)
        parts = [self._heading(level, scale), head, self._cells(level, scale)]
        if level.fidelity:
            parts.append(self._block((f"Fidelity: {level.fidelity}.", SMALL, GREY)))
        return stacked(parts, GAP)

    def _heading(self, level: LevelExplanation, scale: HeatScale) -> Image.Image:
        """Draws the level's name and, at the right, the values of the colours."""
        sheet, draw = self._sheet(HEADING + 4 * GAP)
        draw.text((0, HEADING), level.name, BLACK, self._font(HEADING), anchor="ls")
        left = draw.textlength(level.name, self._font(HEADING)) + 3 * GAP
        facts = f"similarity {level.similarity:.3f}, rate {level.rate:g}"
        draw.text((left, HEADING), facts, GREY, self._font(TEXT), anchor="ls")
        left = self._width - LEGEND_WIDTH
        for step in range(LEGEND_WIDTH):
            colour = scale.colour(scale.limit * (2 * step / (LEGEND_WIDTH - 1) - 1))
            draw.line([(left + step, GAP), (left + step, HEADING)], colour)
        bottom = HEADING + GAP + SMALL
        for place, value, anchor in ((0, -scale.limit, "ls"), (0.5, 0.0, "ms"), (1, scale.limit, "rs")):
            text = scale.number(value)
            draw.text((left + place * LEGEND_WIDTH, bottom), text, GREY, self._font(SMALL), anchor=anchor)
        draw.text((left - 2 * GAP, HEADING), "interaction", GREY, self._font(SMALL), anchor="rs")
        return sheet

    def _frames(self, level: LevelExplanation, thumbnails: npt.NDArray[np.uint8]) -> Image.Image:
        """Draws the frames of each token side by side."""
        sheet, _ = self._sheet(thumbnails.shape[1])
        for (left, _), group in zip(self._columns(level), level.frame_groups, strict=True):
            for number, place in enumerate(group):
                image = Image.fromarray(thumbnails[place])
                centre = left + (number + 0.5) * self._cell_width
                sheet.paste(image, (round(centre - image.width / 2), 0))
        return sheet

    def _times(self, level: LevelExplanation, frame_seconds: Sequence[float]) -> Image.Image:
        """Writes the times of each token's frames, and the token's weight."""
        font = self._font(SMALL)
        columns = self._columns(level)
        labels = [
            broken_at_blanks(times(group, frame_seconds), font, right - left)
            for (left, right), group in zip(columns, level.frame_groups, strict=True)
        ]
        line = SMALL + GAP
        sheet, draw = self._sheet(max(map(len, labels)) * line + SMALL + GAP)
        bottom = sheet.height - GAP
        draw.text((WORDS_RIGHT, SMALL), "seconds", GREY, font, anchor="rs")
        draw.text((WEIGHT_RIGHT, bottom), "weight", GREY, font, anchor="rs")
        for (left, right), lines, weight in zip(columns, labels, level.video_weights.tolist(), strict=True):
            centre = (left + right) / 2
            for number, text in enumerate(lines):
                draw.text((centre, SMALL + number * line), text, GREY, font, anchor="ms")
            draw.text((centre, bottom), f"{weight:.2f}", GREY, font, anchor="ms")
        return sheet

    def _cells(self, level: LevelExplanation, scale: HeatScale) -> Image.Image:
        """Draws the words with their weights and values."""
        font = self._font(TEXT)
        labels = [broken_at_blanks(printable(words), font, WORDS_RIGHT) for words in level.words]
        heights = [CELL_HEIGHT + (len(lines) - 1) * (TEXT + 4) for lines in labels]
        sheet, draw = self._sheet(sum(heights))
        top = 0
        for lines, height, weight, values in zip(
            labels, heights, level.text_weights.tolist(), level.interaction.tolist(), strict=True
        ):
            middle = top + height / 2 - 1
            place = WORDS_RIGHT, middle
            draw.multiline_text(place, "\n".join(lines), BLACK, font, anchor="rm", align="right", spacing=4)
            draw.text((WEIGHT_RIGHT, middle), f"{weight:.2f}", GREY, self._font(SMALL), anchor="rm")
            for (left, right), value in zip(self._columns(level), values, strict=True):
                draw.rectangle([left, top, right - 2, top + height - 2], scale.colour(value))
                centre = (left + right - 2) / 2
                draw.text((centre, middle), scale.number(value), scale.ink(value), self._font(SMALL), anchor="mm")
            top += height
        return sheet

    def _columns(self, level: LevelExplanation) -> list[tuple[int, int]]:
        """Returns the left and right edge of each video token's column."""
        columns, left = [], MAP_LEFT
        gap = GAP if any(len(group) > 1 for group in level.frame_groups) else 0
        for group in level.frame_groups:
            right = left + max(len(group), 1) * self._cell_width
            columns.append((left, right))
            left = right + gap
        return columns

    def _block(self, *paragraphs: Paragraph) -> Image.Image:
        return text_block(paragraphs, self._width, self._font)

    def _sheet(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        return blank(self._width, height)
