"""An explanation as a picture: a heat map for each level, the words to its left and the frames on top."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hbi_infer.render.heat_scale import BLACK, WHITE, HeatScale
from hbi_infer.render.terminal import clock, printable
from hbi_infer.tasks.explain import MEANING, Explanation, LevelExplanation, read_thumbnails

Thumbnails: TypeAlias = npt.NDArray[np.uint8] | None
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

GREY = "#64646c"
MARGIN = 36
GAP = 6
LINE = 1.5
WORDS_RIGHT = 190
WEIGHT_RIGHT = 238
MAP_LEFT = 250
MAP_WIDTH = 1080
NARROWEST = 900
CELL_WIDTHS = 44, 120
CELL_HEIGHT = 26
LEGEND_WIDTH = 200
TITLE, HEADING, TEXT, SMALL = 25, 19, 14, 12

BUILT_IN_LETTERS = frozenset(map(chr, range(32, 127))) | frozenset("·“”…°±«»")
"""What Pillow's own font has, of what can be expected."""
OTHER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf")


def picture(explanation: Explanation) -> bytes:
    """An explanation as a PNG; where the frames cannot be decoded, they are shown as times only.

    Warns:
        NoFramesWarning: The frames cannot be decoded.
    """
    thumbnails = read_thumbnails(explanation, cell_width(explanation) - GAP)
    buffer = io.BytesIO()
    draw_picture(explanation, thumbnails).save(buffer, "png")
    return buffer.getvalue()


def cell_width(explanation: Explanation) -> int:
    """The width that a frame takes, in pixels."""
    least, most = CELL_WIDTHS
    return min(max(MAP_WIDTH // max(map(_num_cells, explanation.levels)), least), most)


def _num_cells(level: LevelExplanation) -> int:
    """A token takes the width of its frames; one without any that of one frame."""
    return sum(max(len(group), 1) for group in level.frame_groups)


def draw_picture(explanation: Explanation, thumbnails: Thumbnails) -> Image.Image:
    """Draw an explanation of a clip of K frames.

    Args:
        explanation: What to draw.
        thumbnails: (K, H, W, 3) uint8, no wider than `cell_width`.
    """
    page = _Page(explanation)
    parts = [page.header(explanation)]
    parts += [page.panel(level, explanation.frame_seconds, thumbnails) for level in explanation.levels]
    parts += [page.footer(explanation)]
    stacked = _stacked(parts, MARGIN)
    sheet = Image.new("RGB", (stacked.width + 2 * MARGIN, stacked.height + 2 * MARGIN), WHITE)
    sheet.paste(stacked, (MARGIN, MARGIN))
    return sheet


def _stacked(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures of one width below each other."""
    sheet = Image.new("RGB", (parts[0].width, sum(part.height + gap for part in parts) - gap), WHITE)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height + gap
    return sheet


class _Page:
    """What all parts of a picture share: the width, that of a frame, and the typeface."""

    def __init__(self, explanation: Explanation) -> None:
        self._cell_width = cell_width(explanation)
        map_width = max(self._columns(level)[-1][1] for level in explanation.levels)
        self._width = max(map_width, NARROWEST)
        letters = set(printable(f"{explanation.query}{explanation.video.name}{''.join(explanation.words)}"))
        self._has_own_font = letters <= BUILT_IN_LETTERS

    def header(self, explanation: Explanation) -> Image.Image:
        """The query, the clip and its score."""
        clip = f"clip {explanation.clip} of {explanation.num_clips}, " if explanation.num_clips > 1 else ""
        span = f"{clip}{clock(explanation.start_seconds)} - {clock(explanation.end_seconds)}"
        facts = f"{printable(explanation.video.name)} · {span} · score {explanation.score:.3f}"
        return self._block([(f"“{printable(explanation.query)}”", TITLE, BLACK), (facts, TEXT, GREY)])

    def footer(self, explanation: Explanation) -> Image.Image:
        """What the numbers are, how faithful all levels together are, and what is left out."""
        fidelity = [f"Fidelity of all levels: {explanation.fidelity}."] if explanation.fidelity else []
        remarks = [f"{remark}." for remark in explanation.remarks]
        return self._block([(line, SMALL, GREY) for line in [MEANING, *fidelity, *remarks]])

    def panel(self, level: LevelExplanation, frame_seconds: Sequence[float], thumbnails: Thumbnails) -> Image.Image:
        """The map of one level under its frames."""
        scale = HeatScale.of(level.interaction)
        parts = [self._heading(level, scale), self._frames(level, frame_seconds, thumbnails), self._cells(level, scale)]
        if level.fidelity:
            parts.append(self._block([(f"Fidelity: {level.fidelity}.", SMALL, GREY)]))
        return _stacked(parts, GAP)

    def _heading(self, level: LevelExplanation, scale: HeatScale) -> Image.Image:
        """The level's name and, at the right, what colour is what value."""
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

    def _frames(self, level: LevelExplanation, frame_seconds: Sequence[float], thumbnails: Thumbnails) -> Image.Image:
        """The frames of each token side by side, with their times, and the token's weight."""
        height = 0 if thumbnails is None else thumbnails.shape[1]
        sheet, draw = self._sheet(height + 2 * (SMALL + GAP))
        bottom = sheet.height - GAP
        draw.text((WORDS_RIGHT, height + SMALL), "seconds", GREY, self._font(SMALL), anchor="rs")
        draw.text((WEIGHT_RIGHT, bottom), "weight", GREY, self._font(SMALL), anchor="rs")
        for (left, right), group, weight in zip(
            self._columns(level), level.frame_groups, level.video_weights.tolist(), strict=True
        ):
            draw.text(((left + right) / 2, bottom), f"{weight:.2f}", GREY, self._font(SMALL), anchor="ms")
            for number, place in enumerate(group):
                centre = left + (number + 0.5) * self._cell_width
                if thumbnails is not None:
                    image = Image.fromarray(thumbnails[place])
                    sheet.paste(image, (round(centre - image.width / 2), 0))
                seconds = f"{frame_seconds[place]:.1f}"
                draw.text((centre, height + SMALL), seconds, GREY, self._font(SMALL), anchor="ms")
        return sheet

    def _cells(self, level: LevelExplanation, scale: HeatScale) -> Image.Image:
        """The words with their weights and values."""
        font = self._font(TEXT)
        labels = [self._lines(printable(words), font, WORDS_RIGHT) for words in level.words]
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
        """Where each video token's column begins and ends."""
        columns, left = [], MAP_LEFT
        gap = GAP if any(len(group) > 1 for group in level.frame_groups) else 0
        for group in level.frame_groups:
            right = left + max(len(group), 1) * self._cell_width
            columns.append((left, right))
            left = right + gap
        return columns

    def _block(self, paragraphs: Sequence[tuple[str, int, str]]) -> Image.Image:
        """Paragraphs of some size and colour, broken into lines as long as the picture is wide."""
        lines = [
            (line, size, colour)
            for text, size, colour in paragraphs
            for line in self._lines(text, self._font(size), self._width)
        ]
        sheet, draw = self._sheet(sum(round(LINE * size) for _, size, _ in lines))
        top = 0
        for line, size, colour in lines:
            draw.text((0, top + size), line, colour, self._font(size), anchor="ls")
            top += round(LINE * size)
        return sheet

    def _lines(self, text: str, font: Font, width: float) -> list[str]:
        """A text broken at blanks into lines that are not wider, but for single words that are."""
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if font.getlength(longer) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def _sheet(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        sheet = Image.new("RGB", (self._width, height), WHITE)
        return sheet, ImageDraw.Draw(sheet)

    def _font(self, size: int) -> Font:
        """Pillow's own, the same on every machine; another if it lacks a letter and there is one."""
        for name in () if self._has_own_font else OTHER_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
        return ImageFont.load_default(size)
