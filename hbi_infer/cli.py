"""The command `hbi-infer`: each command reads its options, calls the library and shows what it gives.

Exit codes: 0 done; 1 an error, told in one line; 2 wrong usage; 3 done, but some files could not be read; 130
interrupted with Ctrl-C; 141 nobody reads the output any more.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbi_infer import __version__, terminal
from hbi_infer.errors import HBIError, InputError

if TYPE_CHECKING:
    from hbi_infer.encoder import Encoder
    from hbi_infer.index import Index
    from hbi_infer.model import HBI
    from hbi_infer.retrieve import Match
    from hbi_infer.update import IndexReport

SOME_FAILED = 3
INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

BundleOption = Annotated[Path | None, typer.Option(metavar="PATH", help="The model: a bundle's folder or zip.")]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
IndexOption = Annotated[
    Path | None, typer.Option("--index", metavar="FILE", help="The index; by default in your cache folder.")
]
WorkersOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes that decode videos.")]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Throw the index away and index everything anew.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say which device is used and why.")]


def _show_version(asked: bool) -> None:
    if asked:
        terminal.emit(f"hbi-infer {__version__}\n")
        raise typer.Exit


@app.callback()
def hbi_infer(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Search folders of videos with a sentence, on your own machine.

    \b
    hbi-infer retrieve --videos samples/ --query "a red circle moves left"
    """  # noqa: D301


@app.command()
def index(
    videos: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of videos.")],
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again files that failed before.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Index a folder of videos, or bring its index up to date.

    Only new and changed files are read. It can be interrupted at any time: what was indexed is kept.

    \b
    hbi-infer index ~/Videos
    """  # noqa: D301
    from hbi_infer.index import Index

    hbi = _load(bundle, device, verbose)
    with Index.open(videos, hbi, location=index_file, rebuild=rebuild) as opened:
        report = _update(opened, workers, retry_failed=retry_failed)
        failures = opened.failures()
        if as_json:
            terminal.emit_json(_document(opened, report))
        else:
            terminal.show_update(report, opened.store.num_clips(), opened.store.path)
    _warn_of_failures(failures)
    raise typer.Exit(SOME_FAILED if failures else 0)


@app.command()
def retrieve(
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to search.")] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="What to find; may be repeated.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="A query on each line.")] = None,
    like: Annotated[Path | None, typer.Option(metavar="VIDEO", help="Find what is like this video.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="VIDEO", help="Rank --captions for this video.")] = None,
    captions: Annotated[Path | None, typer.Option(metavar="FILE", help="A caption on each line.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", metavar="N", min=1, help="The most results of a query.")] = 10,
    rerank: Annotated[
        int, typer.Option(metavar="N", min=0, help="Score the N best anew by reconstructed tokens, if the bundle can.")
    ] = 0,
    all_clips: Annotated[bool, typer.Option("--all-clips", help="A video may be found with several clips.")] = False,
    path: Annotated[str | None, typer.Option(metavar="GLOB", help="Only files such as '*/cats/*'.")] = None,
    folder: Annotated[str | None, typer.Option(metavar="DIR", help="Only this folder inside --videos.")] = None,
    min_duration: Annotated[float | None, typer.Option(metavar="SECONDS", help="Only videos this long.")] = None,
    max_duration: Annotated[float | None, typer.Option(metavar="SECONDS", help="Only videos this short.")] = None,
    newer: Annotated[datetime | None, typer.Option(metavar="DATE", help="Only files changed then or later.")] = None,
    older: Annotated[datetime | None, typer.Option(metavar="DATE", help="Only files changed before.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")] = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: Annotated[bool, typer.Option("--no-update", help="Search what is indexed; read no video.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Search a folder of videos; what is new in it is indexed first.

    On a terminal the results are a table. Into a pipe or a file go tab-separated lines: query, rank, score, file,
    start, end and the times of the best frames, in seconds.

    \b
    hbi-infer retrieve --videos samples/ --query "a red circle moves left"
    hbi-infer retrieve --videos samples/ --like samples/one.mp4 --top-k 3 --json
    hbi-infer retrieve --video samples/one.mp4 --captions captions.txt
    """  # noqa: D301
    from hbi_infer.index import Index
    from hbi_infer.store import Filter

    style = _style(as_json, as_csv)
    _check_usage(videos, bool(query or queries), like, video, captions)
    if rerank and (like or video):
        raise typer.BadParameter("--rerank goes with --query (or --queries)")
    texts = [*(query or ()), *_read_lines(queries)]
    _check_inputs(texts, like or video)
    hbi = _load(bundle, device, verbose)
    if rerank:
        hbi.bundle.require("rerank")
    if video is not None:
        _rank_captions(hbi, video, _read_lines(captions), top_k, style)
        return
    assert videos is not None
    where = Filter(
        path_glob=path,
        folder=folder,
        min_seconds=min_duration,
        max_seconds=max_duration,
        newer_than=newer,
        older_than=older,
    )
    with Index.open(videos, hbi, location=index_file, rebuild=rebuild) as opened:
        report = None if no_update else _update(opened, workers)
        if no_update and not opened.store.num_clips():
            raise InputError(f"nothing of {videos} is indexed: leave out --no-update")
        options: dict[str, Any] = {"top_k": top_k, "where": where, "all_clips": all_clips}
        answers = _search(opened, texts, like, options | ({} if like else {"rerank": rerank}))
        if style == "json":
            document = _document(opened, report)
            terminal.emit_json(document | {"answers": _answers_document(hbi, answers, like)})
        else:
            terminal.show_matches(answers, style, lambda found: str(videos / found.relative_to(opened.folder)))
    failures = report.failed if report else []
    _warn_of_failures(failures)
    raise typer.Exit(SOME_FAILED if failures else 0)


@app.command()
def explain(
    video: Annotated[Path, typer.Option(metavar="FILE", help="The video.")],
    query: Annotated[str, typer.Option("--query", "-q", metavar="TEXT", help="What it was found with.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the maps to a .png, .html or .json.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
    clip: Annotated[int | None, typer.Option(metavar="N", min=1, help="Which clip; else the best match.")] = None,
    at: Annotated[float | None, typer.Option(metavar="SECONDS", help="The clip that holds this moment.")] = None,
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The indexed folder; else the nearest one around the video.")
    ] = None,
    index_file: IndexOption = None,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    verbose: VerboseOption = False,
) -> None:
    """Show why a video matches a sentence: what each word and each frame are worth together, level by level.

    What is indexed is not decoded, but for the small pictures in a .png or .html. On a terminal the maps are coloured
    tables. Into a pipe or a file go tab-separated lines: level, word, times of the frames in seconds, interaction.

    \b
    hbi-infer explain --video samples/one.mp4 --query "a red circle moves left" --out why.png
    """  # noqa: D301
    from hbi_infer.explain_file import SUFFIXES, check_target, write_explanation

    style = _style(as_json, as_csv=False)
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"--out is {out}; give a name that ends in {', '.join(SUFFIXES)}")
    if clip is not None and at is not None:
        raise typer.BadParameter("give --clip or --at, not both")
    if index_file is not None and videos is None:
        raise typer.BadParameter("--index needs --videos DIR, the folder that it is of")
    if out is not None:
        check_target(out, overwrite=force)
    _check_inputs([query], None)
    hbi = _load(bundle, device, verbose)
    explanation = hbi.explain(video, query, videos=videos, location=index_file, clip=clip, at_seconds=at)
    document = {"model": _model_document(hbi), **explanation.to_json()}
    if out is not None:
        write_explanation(explanation, document, out, overwrite=force)
    if style == "json":
        terminal.emit_json(document)
        return
    for remark in explanation.remarks:
        terminal.note("note", remark)
    terminal.show_explanation(explanation, style)


@app.command()
def info(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder or zip; else the embedded model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a bundle is: its sizes, tasks, origin and measured quality; and check its files against their hashes.

    \b
    hbi-infer info
    """  # noqa: D301
    from hbi_infer.bundle import Bundle, default_bundle_path

    loaded = Bundle.load(bundle or default_bundle_path())
    loaded.verify()
    if as_json:
        terminal.emit_json({"path": str(loaded.path), "sha256": loaded.sha256, **loaded.manifest.to_document()})
    else:
        terminal.show_bundle(loaded)


def main() -> None:
    """Run the command line. Only an `HBIError` becomes a line on stderr; anything else is a bug and keeps its trace."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are bytes, which need not be text
    warnings.showwarning = lambda message, *_args, **_options: terminal.note("warning", str(message))
    try:
        app(prog_name="hbi-infer")
    except HBIError as error:
        terminal.note("error", str(error))
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        terminal.note("error", "interrupted: what was indexed is kept; the same command goes on from there")
        sys.exit(INTERRUPTED)


def _load(bundle: Path | None, device: str, verbose: bool) -> HBI:
    from hbi_infer.model import HBI

    hbi = HBI.load(bundle, device=device)
    if hbi.bundle.manifest.notice:
        terminal.note("note", hbi.bundle.manifest.notice)
    if verbose:
        terminal.note("note", f"model {hbi.bundle.manifest.name} on {hbi.device_reason}")
    return hbi


def _style(as_json: bool, as_csv: bool) -> terminal.Style:
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")
    if as_json or as_csv:
        return "json" if as_json else "csv"
    return "table" if sys.stdout.isatty() else "tabs"


def _check_usage(
    videos: Path | None, has_text: bool, like: Path | None, video: Path | None, captions: Path | None
) -> None:
    if (video is None) != (captions is None):
        raise typer.BadParameter("--video and --captions go together")
    if [has_text, like is not None, video is not None].count(True) != 1:
        raise typer.BadParameter("give one of --query (or --queries), --like, and --video with --captions")
    if (videos is None) != (video is not None):
        raise typer.BadParameter("--query and --like need --videos DIR; --video with --captions takes none")


def _check_inputs(texts: list[str], video: Path | None) -> None:
    """Refuse what cannot be searched with now, before minutes of indexing."""
    if not all(text.strip() for text in texts):
        raise InputError("a query is empty: give a sentence that says what to find")
    if video is not None and not video.is_file():
        raise InputError(f"there is no file {video}: give a video to search with")


def _read_lines(path: Path | None) -> list[str]:
    """The lines of a text file that are not blank."""
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}): give a UTF-8 text file, a sentence on each line") from error
    if not any(lines):
        raise InputError(f"{path} is empty: give a text file a sentence on each line")
    return [line for line in lines if line]


def _update(opened: Index, workers: int | None, *, retry_failed: bool = False) -> IndexReport:
    def on_wait() -> None:
        terminal.note("note", "another process is indexing this folder; waiting until it is done")

    with terminal.index_progress() as progress:
        report = opened.update(workers=workers, retry_failed=retry_failed, progress=progress, on_wait=on_wait)
    for path, reason in report.partial:
        terminal.note("warning", f"{path} is indexed in part: {reason}")
    return report


def _warn_of_failures(failures: Sequence[tuple[str, str]]) -> None:
    for path, reason in failures:
        terminal.note("warning", f"{path} cannot be searched: {reason}")


Answers = list[tuple[str, list["Match"]]]


def _search(opened: Index, texts: list[str], like: Path | None, options: dict[str, Any]) -> Answers:
    """What was asked for, with what was found."""
    from hbi_infer.retrieve import search

    if like is not None:
        return [(str(like), opened.like(like, **options))]
    return list(zip(texts, search(opened, texts, **options), strict=True))


def _rank_captions(hbi: HBI, video: Path, captions: list[str], top_k: int, style: terminal.Style) -> None:
    from hbi_infer.retrieve import rank_captions

    ranked = rank_captions(hbi, video, captions, top_k=top_k)
    if style == "json":
        document = {"model": _model_document(hbi), "video": str(video)}
        terminal.emit_json(document | {"captions": [match.to_json() for match in ranked]})
    else:
        terminal.show_captions(str(video), ranked, style)


def _model_document(hbi: Encoder) -> dict[str, Any]:
    return {"name": hbi.bundle.manifest.name, "path": str(hbi.bundle.path), "sha256": hbi.bundle.sha256}


def _document(opened: Index, report: IndexReport | None) -> dict[str, Any]:
    """What JSON says about the model, the index and its update."""
    update = None
    if report is not None:
        named = {
            name: [{"path": path, "reason": reason} for path, reason in getattr(report, name)]
            for name in ("partial", "failed")
        }
        update = asdict(report) | named | {"clips_per_second": report.clips_per_second}
    return {
        "model": _model_document(opened.encoder),
        "videos": str(opened.folder),
        "index": {"path": str(opened.store.path), "clips": opened.store.num_clips()},
        "update": update,
    }


def _answers_document(hbi: HBI, answers: Answers, like: Path | None) -> list[dict[str, Any]]:
    """What JSON says for each query: where it was cut if it was too long, and what was found."""
    if like is not None:
        return [{"like": asked, "results": [match.to_json() for match in found]} for asked, found in answers]
    cuts = hbi.tokenize([asked for asked, _ in answers]).truncated
    return [
        {
            "query": asked,
            "cut_at_word": cut.word_number if cut else None,
            "results": [match.to_json() for match in found],
        }
        for (asked, found), cut in zip(answers, cuts, strict=True)
    ]
