"""An explanation as one HTML page that needs no other file and loads none."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from hbi_infer.render.explain_picture import cell_width
from hbi_infer.render.heat_scale import HeatScale
from hbi_infer.render.terminal import clock, printable
from hbi_infer.tasks.explain import MEANING, Explanation, LevelExplanation, read_thumbnails
from hbi_infer.tokens.fidelity import NUM_DRAWS, Deletion, Fidelity

Pictures: TypeAlias = Sequence[str] | None
"""An `img` element for each frame of the clip."""

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
.map td { text-align: center; min-width: 3.2em; padding: .2em; font-variant-numeric: tabular-nums; }
.merged .group { border-left: 6px solid white; }
img { display: block; margin: auto; }
.bar { display: inline-block; width: 12em; height: .8em; margin: 0 .5em; }
.fidelity td, .fidelity th { padding: 0 1em 0 0; text-align: left; font-weight: normal; font-size: .85rem; }
.fidelity caption { text-align: left; }
"""


def page(explanation: Explanation) -> str:
    """An explanation as HTML; where the frames cannot be decoded, they are shown as times only.

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
<style>{STYLE}img {{ width: {cell_width(explanation)}px; }}
</style>
</head>
<body>
<h1>“{query}”</h1>
<p>{video} · {clip}, {span} · score {explanation.score:.3f}</p>
{"".join(_map(level, explanation.frame_seconds, pictures) for level in explanation.levels)}
<h2>all levels</h2>
{_fidelity(explanation.fidelity)}
<p>{_text(MEANING)}</p>
{"".join(f"<p>{_text(remark)}.</p>" for remark in explanation.remarks)}
</body>
</html>
"""


def _map(level: LevelExplanation, frame_seconds: Sequence[float], pictures: Pictures) -> str:
    """The map of one level under its frames, and its fidelity."""
    scale = HeatScale.of(level.interaction)
    merged = " merged" if any(len(group) > 1 for group in level.frame_groups) else ""
    frames, weights = [], []
    for group, weight in zip(level.frame_groups, level.video_weights.tolist(), strict=True):
        for number, place in enumerate(group):
            picture = "" if pictures is None else pictures[place]
            start = "" if number else ' class="group"'
            frames.append(f'<th{start}>{picture}<span class="time">{frame_seconds[place]:.1f} s</span></th>')
        if not group:
            frames.append('<th class="group"></th>')
        weights.append(f'<th class="weight group" colspan="{len(group) or 1}">{weight:.2f}</th>')
    rows = "".join(
        f'<tr><th>{_text(word)}</th><th class="weight">{weight:.2f}</th>{_cells(level, row, scale)}</tr>\n'
        for row, (word, weight) in enumerate(zip(level.words, level.text_weights.tolist(), strict=True))
    )
    return f"""<h2>{_text(level.name)} <small>similarity {level.similarity:.3f}, rate {level.rate:g}</small></h2>
{_legend(scale)}
<table class="map{merged}">
<thead>
<tr><th></th><th></th>{"".join(frames)}</tr>
<tr><th></th><th class="weight">weight</th>{"".join(weights)}</tr>
</thead>
<tbody>
{rows}</tbody>
</table>
{_fidelity(level.fidelity)}
"""


def _cells(level: LevelExplanation, row: int, scale: HeatScale) -> str:
    return "".join(
        f'<td class="group" colspan="{len(group) or 1}" title="cosine {cosine:.3f}" '
        f'style="background: {scale.colour(value)}; color: {scale.ink(value)}">{scale.number(value)}</td>'
        for group, value, cosine in zip(
            level.frame_groups, level.interaction[row].tolist(), level.cosines[row].tolist(), strict=True
        )
    )


def _legend(scale: HeatScale) -> str:
    colours = ", ".join(map(scale.colour, (-scale.limit, 0.0, scale.limit)))
    return (
        f'<p class="legend">interaction {scale.number(-scale.limit)}'
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
