"""Writes an explanation as one HTML page that loads no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from hbi_infer.render.explain_grid import Grid, most_cells, times
from hbi_infer.render.heat_scale import HeatScale
from hbi_infer.render.picture import cell_width
from hbi_infer.render.stdout import clock, printable
from hbi_infer.tasks.explain import MEANING, Explanation, LevelExplanation, read_thumbnails
from hbi_infer.tokens.fidelity import NUM_DRAWS, Deletion, Fidelity

Pictures: TypeAlias = Sequence[str] | None
"""`img` element of each frame in the clip, if they can be decoded."""

THUMBNAIL_SIZE = 112
ORDERS = (
    ("by_interaction", "by interaction"),
    ("by_magnitude", "by its magnitude"),
    ("by_cosine", "by cosine"),
    ("at_random", f"at random, {NUM_DRAWS} times"),
)
STYLE = """
body { margin: 2em auto; max-width: 90em; padding: 0 2em; font: 15px/1.5 system-ui, sans-serif; color: #18181b; }
h1 { font-size: 1.6em; font-weight: 500; margin: 0; }
h2 { font-size: 1.2em; font-weight: 500; margin: 2em 0 .5em; }
p, small, caption, .weight, .legend, .time { color: #64646c; }
small, caption, .weight, .legend, .time { font-size: .85rem; font-weight: normal; }
table { border-collapse: separate; border-spacing: 2px; }
.map th { font-weight: normal; text-align: right; max-width: 18em; padding-right: .5em; }
.map thead th { text-align: center; vertical-align: bottom; padding: 0; }
.map thead .frames { max-width: none; white-space: nowrap; }
.map td { text-align: center; min-width: 3.2em; padding: .2em; font-variant-numeric: tabular-nums; }
.sentence { font-size: 1.35em; margin-top: 1em; }
.mark { outline: 3px solid #18181b; outline-offset: -3px; font-weight: 600; }
summary { cursor: pointer; margin-top: 2em; }
.merged .group { border-left: 6px solid white; }
img { margin: 0 1px; vertical-align: bottom; }
.bar { display: inline-block; width: 12em; height: .8em; margin: 0 .5em; }
.fidelity td, .fidelity th { padding: 0 1em 0 0; text-align: left; font-weight: normal; font-size: .85rem; }
.fidelity caption { text-align: left; }
"""


def page(explanation: Explanation) -> str:
    """Returns an explanation as HTML; frames that cannot be decoded are shown as times only.

    Warns:
        NoFramesWarning: The frames cannot be decoded.
    """
    thumbnails = read_thumbnails(explanation, THUMBNAIL_SIZE)
    pictures = None if thumbnails is None else [_img(frame) for frame in thumbnails]
    query, video = _text(explanation.query), _text(explanation.video.name)
    span = f"{clock(explanation.start_seconds)} - {clock(explanation.end_seconds)}"
    clip = f"clip {explanation.clip} of {explanation.num_clips}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{query} - {video}</title>
<style>{STYLE}img {{ width: {cell_width(most_cells(explanation))}px; }}
</style>
</head>
<body>
<h1>“{query}”</h1>
<p>{video} · {clip}, {span} · score {explanation.score:.3f}</p>
{_words(explanation, pictures)}
<details>
<summary>The levels behind it</summary>
{"".join(_level(level, explanation.frame_seconds, pictures) for level in explanation.levels)}
<h2>all levels</h2>
{_fidelity(explanation.fidelity)}
<p>{_text(MEANING)}</p>
</details>
{"".join(f"<p>{_text(remark)}.</p>" for remark in explanation.remarks)}
</body>
</html>
"""


def _words(explanation: Explanation, pictures: Pictures) -> str:
    """Returns the map of words under the frames, and the sentence that says what it shows."""
    word_map = explanation.word_map
    grid = Grid.of_words(word_map)
    scale = HeatScale.of(grid.values)
    return f"""<h2 class="sentence">{_text(word_map.sentence)}</h2>
{_legend(scale, word_map.method)}
{_table(grid, scale, explanation.frame_seconds, pictures)}
<p>{_text(word_map.meaning)}</p>
"""


def _level(level: LevelExplanation, frame_seconds: Sequence[float], pictures: Pictures) -> str:
    """Returns the map of one level under its frames, and its fidelity."""
    scale = HeatScale.of(level.interaction)
    return f"""<h2>{_text(level.name)} <small>similarity {level.similarity:.3f}, rate {level.rate:g}</small></h2>
{_legend(scale, "interaction")}
{_table(Grid.of_level(level), scale, frame_seconds, pictures)}
{_fidelity(level.fidelity)}
"""


def _table(grid: Grid, scale: HeatScale, frame_seconds: Sequence[float], pictures: Pictures) -> str:
    merged = " merged" if any(len(group) > 1 for group in grid.frame_groups) else ""
    weights: Sequence[float | None] = grid.word_weights or [None] * len(grid.words)
    rows = "".join(
        f"<tr><th>{_text(word)}</th>{_weight(weight)}{_cells(grid, row, scale)}</tr>\n"
        for row, (word, weight) in enumerate(zip(grid.words, weights, strict=True))
    )
    return f"""<table class="map{merged}">
<thead>
{_head(grid, frame_seconds, pictures)}
</thead>
<tbody>
{rows}</tbody>
</table>"""


def _head(grid: Grid, frame_seconds: Sequence[float], pictures: Pictures) -> str:
    """Returns the rows above a map: each column's frames, their times, and its weight."""
    labels = [f"{text} s" if (text := times(group, frame_seconds)) else "" for group in grid.frame_groups]
    rows = [("", "time", labels)]
    if grid.frame_weights is not None:
        rows.append(("weight", "weight", [f"{weight:.2f}" for weight in grid.frame_weights]))
    if pictures is not None:
        rows.insert(0, ("", "frames", ["".join(pictures[place] for place in group) for group in grid.frame_groups]))
    return "\n".join(_head_row(*row) for row in rows)


def _head_row(name: str, kind: str, cells: Sequence[str]) -> str:
    row = "".join(f'<th class="group {kind}">{cell}</th>' for cell in cells)
    return f'<tr><th></th><th class="weight">{name}</th>{row}</tr>'


def _weight(weight: float | None) -> str:
    return f'<th class="weight">{"" if weight is None else f"{weight:.2f}"}</th>'


def _cells(grid: Grid, row: int, scale: HeatScale) -> str:
    return "".join(
        f'<td class="group{" mark" * grid.is_marked(row, column)}"{_hint(grid, row, column)} '
        f'style="background: {scale.colour(value)}; color: {scale.ink(value)}">{scale.number(value)}</td>'
        for column, value in enumerate(grid.values[row].tolist())
    )


def _hint(grid: Grid, row: int, column: int) -> str:
    return "" if grid.hints is None else f' title="cosine {grid.hints[row, column]:.3f}"'


def _legend(scale: HeatScale, values: str) -> str:
    colours = ", ".join(map(scale.colour, (-scale.limit, 0.0, scale.limit)))
    return (
        f'<p class="legend">{values} {scale.number(-scale.limit)}'
        f'<span class="bar" style="background: linear-gradient(to right, {colours})"></span>'
        f"{scale.number(scale.limit)}</p>"
    )


def _fidelity(fidelity: Fidelity | None) -> str:
    if fidelity is None:
        return "<p>No cosine is above 0: there is no similarity to lose.</p>"
    rows = "".join(f"<tr><td>{name}</td>{_deletion(getattr(fidelity, order))}</tr>\n" for order, name in ORDERS)
    return f"""<table class="fidelity">
<caption>What the similarity loses when pairs are removed</caption>
<tr><th></th><th>without the top {fidelity.num_removed} of {fidelity.num_pairs}</th><th>mean over all shares</th></tr>
{rows}</table>"""


def _deletion(deletion: Deletion) -> str:
    columns = (deletion.drop, deletion.drop_error), (deletion.area, deletion.area_error)
    return "".join(f"<td>{mean:.1%}{f' ± {error:.1%}' if error else ''}</td>" for mean, error in columns)


def _img(frame: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "jpeg", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _text(text: str) -> str:
    return escape(printable(text))
