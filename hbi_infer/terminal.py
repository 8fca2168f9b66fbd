"""What the command line shows: results on stdout; progress, notes and warnings on stderr, a line each."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from hbi_infer.bundle import Bundle
    from hbi_infer.retrieve import CaptionMatch, Match
    from hbi_infer.update import IndexProgress, IndexReport

Style = Literal["table", "tabs", "csv", "json"]
"""A table for people, tab-separated lines for cut and awk, comma-separated values under a header, or a document."""

CLOSED_PIPE = 141
"""Exit code when nobody reads stdout any more: what a shell reports for a command that a closed pipe ended."""


def emit(text: str) -> None:
    """Write to stdout at once; end the process quietly if nobody reads any more, as behind `| head`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        sys.exit(CLOSED_PIPE)


def emit_json(document: dict[str, Any]) -> None:
    """One JSON document; in ASCII, so that any name of a file can be written."""
    emit(json.dumps(document, indent=2) + "\n")


def note(kind: Literal["error", "note", "warning"], text: str) -> None:
    """One line on stderr."""
    print(f"{kind}: {printable(text)}", file=sys.stderr)  # noqa: T201


def printable(text: str) -> str:
    r"""The text with an escape (such as \n) for all that could move the cursor or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clock(seconds: float) -> str:
    """75.25 as 1:15.2, 3661 as 1:01:01.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def show_matches(answers: Sequence[tuple[str, Sequence[Match]]], style: Style, place: Callable[[Path], str]) -> None:
    """Queries with their matches, best first; `place` says how the path of a video is written."""
    if style == "table":
        for query, matches in answers:
            rows = [
                (
                    str(match.rank),
                    f"{match.score:.3f}",
                    place(match.path),
                    f"{clock(match.start_seconds)}-{clock(match.end_seconds)}",
                    ", ".join(map(clock, match.best_frame_seconds)),
                )
                for match in matches
            ]
            _show_table(query, ("rank", "score", "file", "clip", "best frames"), rows)
        return
    header = ("query", "rank", "score", "file", "start_seconds", "end_seconds", "best_frame_seconds")
    lines = [
        (
            query,
            str(match.rank),
            f"{match.score:.6f}",
            place(match.path),
            f"{match.start_seconds:.3f}",
            f"{match.end_seconds:.3f}",
            " ".join(f"{seconds:.3f}" for seconds in match.best_frame_seconds),
        )
        for query, matches in answers
        for match in matches
    ]
    _emit_lines(header, lines, style)


def show_captions(video: str, matches: Sequence[CaptionMatch], style: Style) -> None:
    """Captions for a video, best first."""
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


def show_update(report: IndexReport, num_clips: int, path: Path) -> None:
    """What an update of an index did."""
    emit(
        f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.unchanged} unchanged; "
        f"{report.clips} clips in {report.total_seconds:.1f} s ({report.clips_per_second:.1f} clips/s: "
        f"decoding {report.decode_seconds:.1f} s, encoding {report.encode_seconds:.1f} s, "
        f"storing {report.store_seconds:.1f} s)\n"
        f"{num_clips} clips in the index {printable(str(path))}\n"
    )


def show_bundle(bundle: Bundle) -> None:
    """What a bundle is, a line for each fact."""
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
            f"{sampling.image_size} x {sampling.image_size} pixels; a clip has up to {sampling.clip_seconds:g} s",
        ),
        ("text", f"up to {manifest.max_words} tokens, of a vocabulary of {manifest.vocabulary_size:,}"),
        ("width", str(manifest.width)),
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
        *(("metric", f"{name} {value}") for name, value in _flat(provenance.metrics)),
    ]
    emit("".join(f"{name:<8}{printable(value)}\n" for name, value in facts if value))


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined with dots, with their values."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else value


def _emit_lines(header: Sequence[str], lines: Sequence[Sequence[str]], style: Style) -> None:
    if style == "tabs":
        emit("".join("\t".join(map(printable, line)) + "\n" for line in lines))
        return
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *lines])
    emit(buffer.getvalue())


def _show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title), "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


@contextmanager
def index_progress() -> Iterator[Callable[[IndexProgress], None] | None]:
    """A progress bar on stderr, with rate and time left, from the first call on; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("indexing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[clips_per_second]:.1f} clips/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, clips_per_second=0.0)
    started = time.perf_counter()

    def show(progress: IndexProgress) -> None:
        rate = progress.clips / (time.perf_counter() - started)
        bar.update(task, completed=progress.videos_done, total=progress.videos_total, clips_per_second=rate)
        bar.start()  # only now: nothing is shown when nothing is to be done

    try:
        yield show
    finally:
        bar.stop()
