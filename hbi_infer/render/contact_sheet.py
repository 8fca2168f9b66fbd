"""Writes results as a contact sheet, a picture or an HTML page: the best frame of each, time, score, match and file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import write_whole
from hbi_infer.render.picture import GREY, GRID, LINE, Font, Fonts, blank, fonts_for, framed, png, stacked, text_block
from hbi_infer.render.stdout import clock, printable

if TYPE_CHECKING:
    from hbi_infer.tasks.search import Match

SUFFIXES = (".png", ".html")
ANOTHER_SHEET = "another --sheet"

_COLUMNS = 4
_CARD_WIDTH, _FRAME_HEIGHT, _GAP = 320, 180, 24
_TEXT_SIZE, _TITLE_SIZE = 15, 24
_BLACK = "#18181b"
_JPEG_QUALITY = 85

_STYLE = """
body { margin: 2em auto; max-width: 100em; padding: 0 2em; font: 15px/1.5 system-ui, sans-serif; color: #18181b; }
h1 { font-size: 1.4em; font-weight: 500; margin: 1.5em 0 .7em; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(18em, 1fr)); gap: 1.5em; }
figure { margin: 0; }
.frame { background: #f4f4f5; height: 180px; display: flex; align-items: center; justify-content: center; }
img { max-width: 100%; max-height: 180px; }
figcaption { font-size: .9rem; color: #64646c; overflow-wrap: anywhere; padding-top: .4em; }
strong { font-weight: 500; color: #18181b; }
a { color: inherit; }
"""


@dataclass(frozen=True)
class _Card:
    """A result with the lines below its frame."""

    match: Match
    frame: Image.Image | None
    head: str
    place: str
    foot: str


def check_sheet(path: Path | str) -> None:
    """Refuses a contact sheet of an unknown format, before there is anything to write.

    Raises:
        InputError: The format is not known.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is of no known format of sheets: give a name that ends in {' or '.join(SUFFIXES)}")


def write_sheet(
    answers: Sequence[tuple[str, Sequence[Match]]],
    path: Path | str,
    *,
    overwrite: bool,
    place: Callable[[Path], str] = str,
) -> dict[Path, VideoError]:
    """Writes the results of each query below it.

    Args:
        answers: Each query with its results.
        path: The file, a .png or an .html that loads no other file.
        overwrite: Whether a file that exists is replaced.
        place: Function that gives the path of a video as it is written.

    Returns:
        Path of each video whose frame could not be read, with why; it is shown without.

    Raises:
        InputError: The format is not known, or the file cannot be written.
    """
    path = Path(path)
    check_sheet(path)
    failed: dict[Path, VideoError] = {}
    sections = [(query, [_card(match, place, failed) for match in matches]) for query, matches in answers]
    content = _page(sections).encode() if path.suffix.lower() == ".html" else _picture(sections)
    write_whole(path, content, overwrite=overwrite, instead=ANOTHER_SHEET)
    return failed


def _card(match: Match, place: Callable[[Path], str], failed: dict[Path, VideoError]) -> _Card:
    from hbi_infer.video.reader import read_picture

    seconds = match.best_frame_seconds[0] if match.best_frame_seconds else match.start_seconds
    frame = None
    try:
        frame = Image.fromarray(read_picture(match.path, seconds, longest_side=_CARD_WIDTH))
        frame.thumbnail((_CARD_WIDTH, _FRAME_HEIGHT))
    except VideoError as error:
        failed[match.path] = error
    span = f"{clock(match.start_seconds)} - {clock(match.end_seconds)}"
    unusual = "" if match.match is None else f" · match {match.match:.2f}"
    copies = f" · {len(match.copies)} more like it" if match.copies else ""
    return _Card(
        match,
        frame,
        head=f"{match.rank} · {span}",
        place=printable(place(match.path)),
        foot=f"best frame {clock(seconds)} · score {match.score:.3f}{unusual}{copies}",
    )


def _picture(sections: Sequence[tuple[str, Sequence[_Card]]]) -> bytes:
    texts = [query for query, _ in sections] + [card.place for _, cards in sections for card in cards]
    fonts = fonts_for("".join(texts))
    width = _COLUMNS * (_CARD_WIDTH + _GAP) - _GAP
    parts = []
    for query, cards in sections:
        rows = [_row(cards[start : start + _COLUMNS], width, fonts) for start in range(0, len(cards), _COLUMNS)]
        rows = rows or [text_block([("nothing found", _TEXT_SIZE, GREY)], width, fonts)]
        parts.append(stacked([text_block([(printable(query), _TITLE_SIZE, _BLACK)], width, fonts), *rows], _GAP))
    return png(framed(stacked(parts, 2 * _GAP)))


def _row(cards: Sequence[_Card], width: int, fonts: Fonts) -> Image.Image:
    line = round(LINE * _TEXT_SIZE)
    sheet, draw = blank(width, _FRAME_HEIGHT + 3 * line + line // 2)
    font = fonts(_TEXT_SIZE)
    for column, card in enumerate(cards):
        left = column * (_CARD_WIDTH + _GAP)
        draw.rectangle((left, 0, left + _CARD_WIDTH - 1, _FRAME_HEIGHT - 1), GRID)
        if card.frame:
            sheet.paste(
                card.frame, (left + (_CARD_WIDTH - card.frame.width) // 2, (_FRAME_HEIGHT - card.frame.height) // 2)
            )
        else:
            middle = (left + _CARD_WIDTH // 2, _FRAME_HEIGHT // 2)
            draw.text(middle, "cannot be read", GREY, font, anchor="mm")
        lines = ((card.head, _BLACK), (card.place, GREY), (card.foot, GREY))
        for number, (text, colour) in enumerate(lines, start=1):
            draw.text((left, _FRAME_HEIGHT + number * line), _fitting(text, font), colour, font, anchor="ls")
    return sheet


def _fitting(text: str, font: Font) -> str:
    """Returns a text that is not wider than a card; an ellipsis stands for its middle."""
    if font.getlength(text) <= _CARD_WIDTH:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(shorter := f"{text[: kept // 3]}...{text[-(kept - kept // 3) :]}") > _CARD_WIDTH:
        kept -= 1
    return shorter


def _page(sections: Sequence[tuple[str, Sequence[_Card]]]) -> str:
    title = _text("; ".join(query for query, _ in sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
{"".join(_section(query, cards) for query, cards in sections)}</body>
</html>
"""


def _section(query: str, cards: Sequence[_Card]) -> str:
    figures = "".join(map(_figure, cards)) or "<p>nothing found</p>"
    return f'<h1>{_text(query)}</h1>\n<div class="sheet">\n{figures}</div>\n'


def _figure(card: _Card) -> str:
    match = card.match
    address = f"{match.path.absolute().as_uri()}#t={match.start_seconds:.3f},{match.end_seconds:.3f}"
    return (
        f'<figure><div class="frame">{_img(card.frame)}</div>\n'
        f'<figcaption><strong>{_text(card.head)}</strong><br><a href="{escape(address)}">{_text(card.place)}</a><br>'
        f"{_text(card.foot)}</figcaption></figure>\n"
    )


def _img(frame: Image.Image | None) -> str:
    if frame is None:
        return "cannot be read"
    buffer = io.BytesIO()
    frame.save(buffer, "jpeg", quality=_JPEG_QUALITY)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _text(text: str) -> str:
    """Returns a text as HTML shows it; a byte of a name that is no letter is an escape."""
    return escape(printable(text).encode(errors="backslashreplace").decode())
