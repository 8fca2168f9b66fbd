"""Shows results on stdout: tables for people, lines for other programs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from hbi_infer.render.explain_grid import WORDS, Grid, times
from hbi_infer.render.spreadsheet import csv_text
from hbi_infer.render.stdout import clock, emit, printable

if TYPE_CHECKING:
    from pathlib import Path

    from hbi_infer.catalog.catalog import AtHand
    from hbi_infer.index.update import IndexReport
    from hbi_infer.model.bundle import Bundle
    from hbi_infer.model.manifest import BundleManifest
    from hbi_infer.tasks.caption import Caption
    from hbi_infer.tasks.explain import Explanation
    from hbi_infer.tasks.qa import Answer
    from hbi_infer.tasks.rank_captions import CaptionMatch
    from hbi_infer.tasks.search import Match

Style = Literal["table", "tabs", "csv", "json"]
"""Table for people, tab-separated lines for cut and awk, comma-separated values under a header, or JSON."""

DO_NOT_KNOW = "don't know"
UNFAMILIAR = "unfamiliar"
"""Mark of a clip that is unlike all that the model was trained on."""
LABEL_WIDTH = 28
"""Longest line of a map's label, in letters."""
STRONGEST_SHOWN = 3
"""Number of pairs of each level in the list of the strongest."""


def show_matches(answers: Sequence[tuple[str, Sequence[Match]]], style: Style, place: Callable[[Path], str]) -> None:
    """Shows queries with their matches, best first; `place` gives the path of a video as it is written."""
    if style == "table":
        for query, matches in answers:
            rows = [
                (
                    str(match.rank),
                    f"{match.score:.3f}",
                    _share(match.match),
                    _marked(place(match.path), match),
                    f"{clock(match.start_seconds)}-{clock(match.end_seconds)}",
                    ", ".join(map(clock, match.best_frame_seconds)),
                )
                for match in matches
            ]
            _show_table(query, ("rank", "score", "match", "file", "clip", "best frames"), rows)
        return
    header = ("query", "rank", "score", "file", "start_seconds", "end_seconds", "best_frame_seconds", "copies", "match")
    lines = [
        (
            query,
            str(match.rank),
            f"{match.score:.6f}",
            place(match.path),
            f"{match.start_seconds:.3f}",
            f"{match.end_seconds:.3f}",
            " ".join(f"{seconds:.3f}" for seconds in match.best_frame_seconds),
            str(len(match.copies)),
            _share(match.match),
        )
        for query, matches in answers
        for match in matches
    ]
    _emit_lines(header, lines, style)


def show_models(models: Sequence[AtHand], style: Style) -> None:
    """Shows the models that are at hand."""
    rows = [
        (
            each.name,
            "yes" if each.is_default else "",
            f"{each.origin} {each.revision[:12]}".strip() if style == "table" else each.origin,
            *(() if style == "table" else (each.revision,)),
            f"{each.size_bytes / 1e6:,.1f} MB" if style == "table" else str(each.size_bytes),
            ", ".join(each.tasks),
            f"{each.made.astimezone():%Y-%m-%d}" if style == "table" else each.made.isoformat(timespec="seconds"),
        )
        for each in models
    ]
    if style == "table":
        _show_table("models at hand", ("name", "default", "origin", "size", "tasks", "made"), rows)
    else:
        _emit_lines(("name", "default", "origin", "revision", "size_bytes", "tasks", "made"), rows, style)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def _marked(place: str, match: Match) -> str:
    """Returns the place of a result, with the number of copies that are folded into it, and marked if unfamiliar."""
    num_copies = len(match.copies)
    marks = [f"and {num_copies} {'copy' if num_copies == 1 else 'copies'}"] if num_copies else []
    marks += [UNFAMILIAR] if match.unfamiliar else []
    return f"{place} ({', '.join(marks)})" if marks else place


def show_captions(video: str, matches: Sequence[CaptionMatch], style: Style) -> None:
    """Shows captions ranked for a video, best first."""
    if style == "table":
        rows = [
            (
                str(match.rank),
                f"{match.score:.3f}",
                match.caption,
                f"{clock(match.start_seconds)}-{clock(match.end_seconds)}",
            )
            for match in matches
        ]
        _show_table(video, ("rank", "score", "caption", "clip"), rows)
        return
    lines = [
        (str(m.rank), f"{m.score:.6f}", m.caption, f"{m.start_seconds:.3f}", f"{m.end_seconds:.3f}") for m in matches
    ]
    _emit_lines(("rank", "score", "caption", "start_seconds", "end_seconds"), lines, style)


def show_answers(asked: Sequence[tuple[str, Sequence[Answer]]], style: Style, place: Callable[[Path], str]) -> None:
    """Shows questions with an answer for each video or clip; `place` gives the path of a video as it is written."""
    if style == "table":
        for question, answers in asked:
            rows = [
                (
                    place(answer.path),
                    f"{clock(answer.start_seconds)}-{clock(answer.end_seconds)}",
                    answer.text if answer.text is not None else DO_NOT_KNOW,
                    ", ".join(f"{choice.text} {choice.probability:.0%}" for choice in answer.choices),
                )
                for answer in answers
            ]
            _show_table(question, ("file", "clip", "answer", "likeliest"), rows)
        return
    header = (
        *("question", "file", "clip", "start_seconds", "end_seconds"),
        *("answer", "probability", "likeliest"),
    )
    lines = [
        (
            question,
            place(answer.path),
            str(answer.clip),
            f"{answer.start_seconds:.3f}",
            f"{answer.end_seconds:.3f}",
            answer.text if answer.text is not None else DO_NOT_KNOW,
            f"{answer.probability:.6f}",
            "; ".join(f"{choice.text} {choice.probability:.6f}" for choice in answer.choices),
        )
        for question, answers in asked
        for answer in answers
    ]
    _emit_lines(header, lines, style)


def show_written(captions: Sequence[Caption], style: Style, place: Callable[[Path], str]) -> None:
    """Shows a caption for each clip; `place` gives the path of a video as it is written."""
    from hbi_infer.render.caption_file import COLUMNS, fields_of

    if style != "table":
        _emit_lines(COLUMNS, fields_of(captions, place), style)
        return
    for file, some in groupby(captions, lambda caption: caption.path):
        rows = [(f"{clock(each.start_seconds)}-{clock(each.end_seconds)}", each.text) for each in some]
        _show_table(place(file), ("clip", "caption"), rows)


def show_explanation(explanation: Explanation, style: Style) -> None:
    """Shows which words belong to which moment, and how much each word and frame are worth together at each level."""
    word_map = explanation.word_map
    if style != "table":
        frames: tuple[tuple[float, ...], ...] = tuple((seconds,) for seconds in explanation.frame_seconds)
        maps = [(WORDS, word_map.words, frames, word_map.values)]
        maps += [(level.name, level.words, level.frames, level.interaction) for level in explanation.levels]
        lines = [
            (name, word, " ".join(f"{each:.3f}" for each in seconds), f"{value:.6f}")
            for name, words, columns, interaction in maps
            for word, values in zip(words, interaction.tolist(), strict=True)
            for seconds, value in zip(columns, values, strict=True)
        ]
        _emit_lines(("level", "word", "frame_seconds", "interaction"), lines, style)
        return
    emit(f"{printable(word_map.sentence)}\n\n")
    _show_map(f"{WORDS}: {word_map.method}", Grid.of_words(word_map), explanation.frame_seconds)
    for level in explanation.levels:
        title = f"{level.name}: similarity {level.similarity:.3f}, rate {level.rate:g}; interaction"
        _show_map(title, Grid.of_level(level), explanation.frame_seconds)
    rows = [
        (
            level.name,
            level.words[row],
            times(level.frame_groups[column], explanation.frame_seconds),
            f"{level.interaction[row, column]:.4f}",
            f"{level.cosines[row, column]:.3f}",
        )
        for level in explanation.levels
        for row, column in level.strongest(STRONGEST_SHOWN)
    ]
    _show_table("strongest pairs", ("level", "words", "seconds", "interaction", "cosine"), rows)
    fidelities = [
        (
            name,
            f"{fidelity.num_removed} of {fidelity.num_pairs}",
            *(f"{order.drop:.0%}" for order in (fidelity.by_interaction, fidelity.by_magnitude, fidelity.by_cosine)),
            f"{fidelity.at_random.drop:.1%} ± {fidelity.at_random.drop_error:.1%}",
        )
        for name, fidelity in explanation.fidelities()
    ]
    header = ("level", "pairs", "top interaction", "top magnitude", "top cosine", "at random")
    _show_table("fidelity: share of the similarity lost without some pairs", header, fidelities)
    emit(f"score {explanation.score:.3f}, {_clip(explanation)}, tokens from the {explanation.source}\n")


def show_explanation_file(explanation: Explanation, path: Path) -> None:
    """Says in one line which maps were written to which file."""
    emit(
        f'maps of "{printable(explanation.query)}" and {printable(str(explanation.video))}, {_clip(explanation)}, '
        f"score {explanation.score:.3f}, written to {printable(str(path))}\n"
    )


def _clip(explanation: Explanation) -> str:
    span = f"{clock(explanation.start_seconds)}-{clock(explanation.end_seconds)}"
    return f"clip {explanation.clip} of {explanation.num_clips} ({span})"


def _show_map(title: str, grid: Grid, frame_seconds: Sequence[float]) -> None:
    """Shows a coloured cell for each pair, with its value in units that leave it two digits; marked ones are bold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hbi_infer.render.heat_scale import HeatScale

    scale = HeatScale.of(grid.values)
    unit = f"{10**-scale.decimals:.{scale.decimals}f}"
    labels = [textwrap.wrap(printable(word), LABEL_WIDTH) or [""] for word in grid.words]
    width = max(len(line) for lines in [["seconds"], *labels] for line in lines)
    headers = [f" {times(group, frame_seconds)} " for group in grid.frame_groups]
    console = Console()
    console.print(Text(printable(f"{title} in units of {unit}"), "bold"))
    for columns in _side_by_side(list(map(len, headers)), console.width - width - 1):
        table = Table(box=None, pad_edge=False, padding=0)
        table.add_column(f"{'seconds':>{width}} ", no_wrap=True)
        for column in columns:
            table.add_column(headers[column], justify="center", overflow="fold")
        for row, lines in enumerate(labels):
            cells = [
                Text(
                    f"{round(value * 10**scale.decimals)}" + "\n" * (len(lines) - 1),
                    f"{'bold underline ' * grid.is_marked(row, column)}{scale.ink(value)} on {scale.colour(value)}",
                )
                for column in columns
                for value in [float(grid.values[row, column])]
            ]
            table.add_row(Text("\n".join(f"{line:>{width}} " for line in lines)), *cells)
        console.print(table)
        console.print()


def _side_by_side(widths: Sequence[int], room: int) -> list[list[int]]:
    """Splits columns into as few batches as fit into `room`, at least one column in each."""
    batches: list[list[int]] = [[]]
    for column, width in enumerate(widths):
        if batches[-1] and sum(widths[other] for other in batches[-1]) + width > room:
            batches.append([])
        batches[-1].append(column)
    return batches


def show_update(report: IndexReport, num_clips: int, path: Path) -> None:
    """Shows the counts and times of an index update."""
    moved = f"{report.moved} moved, " if report.moved else ""
    counts = f"{report.added} added, {report.changed} changed, {moved}{report.removed} removed"
    emit(
        f"{counts}, {report.unchanged} unchanged; "
        f"{report.clips} clips in {report.total_seconds:.1f} s ({report.clips_per_second:.1f} clips/s: "
        f"waiting for frames {report.wait_seconds:.1f} s, encoding {report.encode_seconds:.1f} s, storing "
        f"{report.store_seconds:.1f} s; decoding, beside it, {report.decode_seconds:.1f} s)\n"
        f"{num_clips} clips in the index {printable(str(path))}\n"
    )


_FITS = {"crop": "", "squash": " (squashed)", "pad": " (with black bars)"}


def show_bundle(bundle: Bundle) -> None:
    """Shows the facts about a bundle, a line each."""
    manifest = bundle.manifest
    sampling, provenance = manifest.sampling, manifest.provenance
    sizes = bundle.sizes_bytes()
    files = ", ".join(f"{file} {size / 1e6:.1f} MB" for file, size in sizes.items())
    facts = [
        ("name", manifest.name),
        ("note", manifest.notice),
        ("path", str(bundle.path)),
        ("sha256", f"{bundle.sha256} (every file matches its hash)"),
        ("tasks", ", ".join(manifest.tasks)),
        ("size", f"{sum(sizes.values()) / 1e6:.1f} MB: {files}"),
        (
            "video",
            f"up to {sampling.max_frames} frames a clip, {sampling.frames_per_second:g} a second, "
            f"{sampling.image_size} x {sampling.image_size} pixels{_FITS[sampling.fit]}; a clip has up to "
            f"{sampling.clip_seconds:g} s",
        ),
        ("text", f"up to {manifest.max_words} tokens, of a vocabulary of {manifest.vocabulary_size:,}"),
        ("width", str(manifest.width)),
        ("pairs", _pairs(manifest)),
        *(
            (
                "level",
                f"{level.name}: {level.video_tokens} video and {level.text_tokens} text tokens, rate {level.rate:g}",
            )
            for level in manifest.levels
        ),
        *(
            ("graph", f"{name}: opset {graph.opset}, {graph.precision}; {', '.join(map(str, graph.inputs))}")
            for name, graph in manifest.graphs.items()
        ),
        ("recipe", provenance.recipe),
        ("data", f"{provenance.data}, seed {provenance.seed}"),
        ("code", provenance.code_version),
        ("made of", provenance.quantized_from and f"the bundle with sha256 {provenance.quantized_from}"),
        ("ranges", provenance.calibration),
        ("merged", provenance.merged_tokens and f"{provenance.merged_tokens} patches in each layer of frames"),
        ("origin", " at ".join(filter(None, (provenance.origin, provenance.revision)))),
        *(("metric", f"{name} {value}") for name, value in _flat(provenance.metrics)),
    ]
    emit("".join(f"{name:<8}{printable(value)}\n" for name, value in facts if value))


def _pairs(manifest: BundleManifest) -> str:
    """Returns how a score becomes the probability of a pair; empty for a model that was not trained so."""
    if manifest.logit_bias is None:
        return ""
    return f"a score s has the probability sigmoid({manifest.logit_scale:.4g} * s {manifest.logit_bias:+.4g})"


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields nested names joined with dots, with their values."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else value


def _emit_lines(header: Sequence[str], lines: Sequence[Sequence[str]], style: Style) -> None:
    if style == "tabs":
        emit("".join("\t".join(map(printable, line)) + "\n" for line in lines))
        return
    emit(csv_text([header, *lines]))


def _show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    # The table's own title would wrap at its width: a path is copied in one piece.
    console.print(Text(printable(title), "bold"), soft_wrap=True)
    console.print(table)
