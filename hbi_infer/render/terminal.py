"""What the command line shows: results on stdout; progress, notes and warnings on stderr, a line each."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TextIO

from hbi_infer.errors import HBIError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from hbi_infer.bench.stages import Measurement
    from hbi_infer.index.update import IndexProgress, IndexReport
    from hbi_infer.model.bundle import Bundle
    from hbi_infer.tasks.caption import Caption
    from hbi_infer.tasks.explain import Explanation, LevelExplanation
    from hbi_infer.tasks.qa import Answer
    from hbi_infer.tasks.rank_captions import CaptionMatch
    from hbi_infer.tasks.search import Match

Style = Literal["table", "tabs", "csv", "json"]
"""A table for people, tab-separated lines for cut and awk, comma-separated values under a header, or a document."""

DO_NOT_KNOW = "don't know"
LABEL_WIDTH = 28
STRONGEST_SHOWN = 3
"""Of a map: letters in a line of a label; pairs of each level in the list."""

CLOSED_PIPE = 141
"""Exit code when nobody reads stdout any more: what a shell reports for a command that a closed pipe ended."""


def prepare_streams() -> None:
    """Let stdout take any name of a file and any letter, and let stdout and stderr be closed by who started this."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Without it, print takes stdout for stderr.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("byte_or_escape", _byte_or_escape)
        sys.stdout.reconfigure(errors="byte_or_escape")


def _byte_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """A byte of a file's name, which need not be text, as it is; an escape for a letter that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


NO_BUGS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says of a file when the fault is not the program's."""


@contextmanager
def errors_told() -> Iterator[None]:
    """Inside, what the user can mend becomes a line on stderr and exit code 1; a bug keeps its trace."""
    try:
        yield
    except HBIError as error:
        note("error", str(error))
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.errno not in NO_BUGS:
            raise
        note("error", f"cannot use {os.fsdecode(error.filename)} ({error.strerror})")
        sys.exit(1)


def emit(text: str) -> None:
    """Write to stdout at once; end the process quietly if nobody reads any more, as behind `| head`.

    Raises:
        InputError: It cannot be written, as where stdout is a file on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        _discard(sys.stdout)
        raise InputError(f"cannot write the results ({error.strerror}): send them to another place") from error


def _discard(stream: TextIO) -> None:
    """Let what cannot be written go nowhere: the interpreter flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(document: dict[str, Any]) -> None:
    """One JSON document; in ASCII, so that any name of a file can be written."""
    emit(json.dumps(document, indent=2) + "\n")


def note(kind: Literal["error", "note", "warning"], text: str) -> None:
    """One line on stderr; nothing if nobody reads it any more, as behind `2>&1 | head`."""
    try:
        print(f"{kind}: {printable(text)}", file=sys.stderr)  # noqa: T201
    except OSError:
        _discard(sys.stderr)


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


def show_answers(asked: Sequence[tuple[str, Sequence[Answer]]], style: Style, place: Callable[[Path], str]) -> None:
    """Questions with an answer for each video or clip; `place` says how the path of a video is written."""
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
    """A caption for each clip; `place` says how the path of a video is written."""
    from hbi_infer.render.caption_file import COLUMNS, fields_of

    if style != "table":
        _emit_lines(COLUMNS, fields_of(captions, place), style)
        return
    for file, some in groupby(captions, lambda caption: caption.path):
        rows = [(f"{clock(each.start_seconds)}-{clock(each.end_seconds)}", each.text) for each in some]
        _show_table(place(file), ("clip", "caption"), rows)


def show_explanation(explanation: Explanation, style: Style) -> None:
    """Which words and frames are worth how much together."""
    if style != "table":
        lines = [
            (level.name, word, " ".join(f"{each:.3f}" for each in seconds), f"{value:.6f}")
            for level in explanation.levels
            for word, values in zip(level.words, level.interaction.tolist(), strict=True)
            for seconds, value in zip(level.frames, values, strict=True)
        ]
        _emit_lines(("level", "word", "frame_seconds", "interaction"), lines, style)
        return
    for level in explanation.levels:
        _show_map(level, explanation.frame_seconds)
    rows = [
        (
            level.name,
            level.words[row],
            _spans(level.frame_groups[column], explanation.frame_seconds),
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
    span = f"{clock(explanation.start_seconds)}-{clock(explanation.end_seconds)}"
    emit(
        f"score {explanation.score:.3f}, clip {explanation.clip} of {explanation.num_clips} ({span}), "
        f"tokens from the {explanation.source}\n"
    )


def _show_map(level: LevelExplanation, frame_seconds: Sequence[float]) -> None:
    """A coloured cell for each pair, with its interaction in units that leave it two digits."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hbi_infer.render.heat_scale import HeatScale

    scale = HeatScale.of(level.interaction)
    unit = f"{10**-scale.decimals:.{scale.decimals}f}"
    labels = [textwrap.wrap(printable(word), LABEL_WIDTH) or [""] for word in level.words]
    width = max(len(line) for lines in [["seconds"], *labels] for line in lines)
    headers = [f" {_spans(group, frame_seconds)} " for group in level.frame_groups]
    console = Console()
    title = f"{level.name}: similarity {level.similarity:.3f}, rate {level.rate:g}; interaction in units of {unit}"
    console.print(Text(title, "bold"))
    for columns in _side_by_side(list(map(len, headers)), console.width - width - 1):
        table = Table(box=None, pad_edge=False, padding=0)
        table.add_column(f"{'seconds':>{width}} ", no_wrap=True)
        for column in columns:
            table.add_column(headers[column], justify="center", overflow="fold")
        for row, lines in enumerate(labels):
            values = [float(level.interaction[row, column]) for column in columns]
            cells = [
                Text(
                    f"{round(value * 10**scale.decimals)}" + "\n" * (len(lines) - 1),
                    f"{scale.ink(value)} on {scale.colour(value)}",
                )
                for value in values
            ]
            table.add_row(Text("\n".join(f"{line:>{width}} " for line in lines)), *cells)
        console.print(table)
        console.print()


def _side_by_side(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns in as many batches as it takes for each to have room, at least one column in each."""
    batches: list[list[int]] = [[]]
    for column, width in enumerate(widths):
        if batches[-1] and sum(widths[other] for other in batches[-1]) + width > room:
            batches.append([])
        batches[-1].append(column)
    return batches


def _spans(places: Sequence[int], frame_seconds: Sequence[float]) -> str:
    """Times of some frames, runs of neighbours as a span: 0.0-1.3, 3.0."""
    runs = [[place for _, place in run] for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
    return ", ".join(
        f"{frame_seconds[run[0]]:.1f}" + (f"-{frame_seconds[run[-1]]:.1f}" if len(run) > 1 else "") for run in runs
    )


def show_update(report: IndexReport, num_clips: int, path: Path) -> None:
    """What an update of an index did."""
    emit(
        f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.unchanged} unchanged; "
        f"{report.clips} clips in {report.total_seconds:.1f} s ({report.clips_per_second:.1f} clips/s: "
        f"waiting for frames {report.wait_seconds:.1f} s, encoding {report.encode_seconds:.1f} s, storing "
        f"{report.store_seconds:.1f} s; decoding, beside it, {report.decode_seconds:.1f} s)\n"
        f"{num_clips} clips in the index {printable(str(path))}\n"
    )


def show_benched(device: str, made: Measurement | None) -> None:
    """Say on a terminal's stderr what is being measured, and what came of it."""
    if sys.stderr.isatty():
        done = "..." if made is None else f"{made.stage}, batch {made.batch}: {1000 * made.p50_seconds:.4g} ms"
        note("note", f"{device}: {done}")


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
        ("made of", provenance.quantized_from and f"the bundle with sha256 {provenance.quantized_from}"),
        ("ranges", provenance.calibration),
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

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    # Not the table's own title, which wraps at its width: a path is copied in one piece.
    console.print(Text(printable(title), "bold"), soft_wrap=True)
    console.print(table)


@contextmanager
def index_progress() -> Iterator[Callable[[IndexProgress], None]]:
    """A `progress_bar` of an update."""
    with progress_bar("indexing", "videos") as show:
        yield lambda progress: show(progress.videos_done, progress.videos_total, progress.clips)


@contextmanager
def progress_bar(doing: str, what: str) -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar on stderr, with rate and time left, from the first call on; none where stderr is no terminal.

    Args:
        doing: What takes the time.
        what: Is counted.

    Yields:
        What shows how many are done, of how many, and how many clips were made for it by now.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what + ", {task.fields[clips_per_second]:.1f} clips/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, clips_per_second=0.0)
    started = time.perf_counter()

    def show(done: int, total: int, clips: int) -> None:
        rate = clips / (time.perf_counter() - started)
        bar.update(task, completed=done, total=total, clips_per_second=rate)
        bar.start()  # only now: nothing is shown when nothing is to be done

    try:
        yield show
    finally:
        bar.stop()
