"""Parts of a picture: palette, typeface, blocks of text, and sheets below each other."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from hbi_infer.render.heat_scale import WHITE

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Fonts: TypeAlias = Callable[[int], Font]
"""size -> font."""
Paragraph: TypeAlias = tuple[str, int, str]
"""Text, its size in pixels and its colour."""

GREY = "#64646c"
GRID = "#e4e4e7"
RED = "#b2182b"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#777777")
"""Colours of several things side by side, distinct to the colour-blind too."""

MARGIN = 36
LINE = 1.5
"""Height of a line, as a multiple of its size."""
CELL_WIDTHS = 44, 120
MAP_WIDTH = 1080
"""Width that a map's cells share, unless that makes them too narrow or too wide."""

BUILT_IN_LETTERS = frozenset(map(chr, range(32, 127))) | frozenset("·“”…°±«»")
"""Letters of Pillow's own font, as far as they are expected here."""
OTHER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf")


def fonts_for(text: str = "") -> Fonts:
    """Returns Pillow's own font, the same on every machine; another if it lacks a letter of `text` and there is one."""
    names = () if set(text) <= BUILT_IN_LETTERS else OTHER_FONTS

    def font(size: int) -> Font:
        for name in names:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
        return ImageFont.load_default(size)

    return font


def cell_width(num_cells: int) -> int:
    """Returns the width of a map's cell in pixels, for the map with the most cells."""
    least, most = CELL_WIDTHS
    return min(max(MAP_WIDTH // num_cells, least), most)


def blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a white sheet, and the pen that draws on it."""
    sheet = Image.new("RGB", (width, height), WHITE)
    return sheet, ImageDraw.Draw(sheet)


def text_block(paragraphs: Sequence[Paragraph], width: int, fonts: Fonts) -> Image.Image:
    """Draws paragraphs below each other, broken into lines that fit into `width`."""
    lines = [
        (line, size, colour) for text, size, colour in paragraphs for line in broken_at_blanks(text, fonts(size), width)
    ]
    sheet, draw = blank(width, sum(round(LINE * size) for _, size, _ in lines))
    top = 0
    for line, size, colour in lines:
        draw.text((0, top + size), line, colour, fonts(size), anchor="ls")
        top += round(LINE * size)
    return sheet


def broken_at_blanks(text: str, font: Font, width: float) -> list[str]:
    """Breaks a text into lines that are not wider than `width`, except for single words that are."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def stacked(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Puts pictures of one width below each other."""
    sheet, _ = blank(parts[0].width, sum(part.height + gap for part in parts) - gap)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height + gap
    return sheet


def framed(image: Image.Image) -> Image.Image:
    """Returns a picture with a white margin around it."""
    sheet, _ = blank(image.width + 2 * MARGIN, image.height + 2 * MARGIN)
    sheet.paste(image, (MARGIN, MARGIN))
    return sheet


def png(image: Image.Image) -> bytes:
    """Returns a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
