"""The command `hbi-infer`: each command reads its options, calls the library and shows what it gives.

Exit codes: 0 done; 1 an error, told in one line; 2 wrong usage; 3 done, but some files could not be read
or some devices could not run; 130 interrupted with Ctrl-C; 141 nobody reads the output any more.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbi_infer import __version__
from hbi_infer.bench.plan import Plan
from hbi_infer.cli.captions import caption_target, kept_captions, write_captions
from hbi_infer.cli.inputs import (
    SOME_FAILED,
    FolderOptions,
    as_given,
    as_list,
    end_with,
    failures_of,
    find_clips,
    index_document,
    load_model,
    model_document,
    output_style,
    read_lines,
    text_document,
    update_index,
    updated_index,
    whole_numbers,
)
from hbi_infer.errors import InputError
from hbi_infer.files import check_target, is_file
from hbi_infer.options import Answering, Decoding
from hbi_infer.render import stdout, tables

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index
    from hbi_infer.model.token_model import HBI
    from hbi_infer.tasks.search import Match

INTERRUPTED = 130
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
"""Named, for by itself Typer takes a bare number, such as 2026, for seconds since 1970."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

BundleOption = Annotated[Path | None, typer.Option(metavar="PATH", help="The model: a bundle's folder or zip.")]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu, cuda, openvino, tensorrt or tensorrt-rtx; see hbi-infer doctor."),
]
IndexOption = Annotated[
    Path | None, typer.Option("--index", metavar="FILE", help="The index; by default in your cache folder.")
]
WorkersOption = Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes that decode videos.")]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Throw the index away and index everything anew.")]
NoUpdateOption = Annotated[bool, typer.Option("--no-update", help="Take what is indexed; read no video.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say which device is used and why.")]


def _show_version(asked: bool) -> None:
    if asked:
        stdout.emit(f"hbi-infer {__version__}\n")
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
    from hbi_infer.index.folder_index import Index

    hbi = load_model(bundle, device, verbose)
    with Index.open(videos, hbi, location=index_file, rebuild=rebuild) as opened:
        report = update_index(opened, workers, retry_failed=retry_failed)
        failures = failures_of(opened, report)
        if as_json:
            stdout.emit_json(index_document(opened, report))
        else:
            tables.show_update(report, opened.store.num_clips(), opened.store.path)
    end_with(failures, "searched")


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
    newer: Annotated[
        datetime | None,
        typer.Option(metavar="DATE", formats=DATES, help="Only files changed then or later, such as 2026-11-30."),
    ] = None,
    older: Annotated[
        datetime | None,
        typer.Option(metavar="DATE", formats=DATES, help="Only files changed before, such as 2026-11-30T12:00:00."),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
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
    from hbi_infer.index.store import Filter

    style = output_style(as_json, as_csv)
    _check_usage(videos, bool(query or queries), like, video, captions)
    if rerank and (like or video):
        raise typer.BadParameter("--rerank goes with --query (or --queries)")
    texts = [*(query or ()), *read_lines(queries)]
    _check_inputs(texts, like or video)
    hbi = load_model(bundle, device, verbose)
    if rerank:
        hbi.bundle.require("rerank")
    if video is not None:
        _rank_captions(hbi, video, read_lines(captions), top_k, style)
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
    folder_options = FolderOptions(index_file, workers, rebuild, no_update)
    with updated_index(hbi, videos, folder_options) as (opened, report):
        options: dict[str, Any] = {"top_k": top_k, "where": where, "all_clips": all_clips}
        answers = _search(opened, texts, like, options | ({} if like else {"rerank": rerank}))
        if style == "json":
            document = index_document(opened, report)
            stdout.emit_json(document | {"answers": _answers_document(hbi, answers, like)})
        else:
            tables.show_matches(answers, style, as_given(videos))
        if where != Filter() and not any(found for _, found in answers):
            stdout.note("note", f"none of the {opened.store.num_clips()} indexed clips passes the filters")
    end_with(report.failed if report else [], "searched")


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
    from hbi_infer.render.explain_file import SUFFIXES, write_explanation

    style = output_style(as_json, as_csv=False)
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"--out is {out}; give a name that ends in {', '.join(SUFFIXES)}")
    if clip is not None and at is not None:
        raise typer.BadParameter("give --clip or --at, not both")
    if index_file is not None and videos is None:
        raise typer.BadParameter("--index needs --videos DIR, the folder that it is of")
    if out is not None:
        check_target(out, overwrite=force)
    _check_inputs([query], None)
    hbi = load_model(bundle, device, verbose)
    explanation = hbi.explain(video, query, videos=videos, location=index_file, clip=clip, at_seconds=at)
    document = {"model": model_document(hbi), **explanation.to_json()}
    if out is not None:
        write_explanation(explanation, document, out, overwrite=force)
    if style == "json":
        stdout.emit_json(document)
        return
    for remark in explanation.remarks:
        stdout.note("note", remark)
    if out is not None:
        tables.show_explanation_file(explanation, out)
    else:
        tables.show_explanation(explanation, style)


@app.command()
def qa(
    video: Annotated[Path, typer.Option(metavar="FILE|DIR", help="The video, or a folder of videos.")],
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", metavar="TEXT", help="What to answer; may be repeated.")
    ] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="A question on each line.")] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="N", min=1, help="How many answers to name, the likeliest first.")
    ] = Answering().top_k,
    threshold: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help='Say "don\'t know" where the best is less probable.')
    ] = Answering().min_probability,
    all_clips: Annotated[
        bool, typer.Option("--all-clips", help="An answer for each clip; by default for each video.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Answer questions about a video, or about each video in a folder; what is new in it is indexed first.

    Of a long video the clip with the most probable answer counts. A video that is indexed is not decoded again. Into a
    pipe or a file go tab-separated lines: question, file, clip, start and end in seconds, answer, its probability, and
    the likeliest answers with theirs.

    \b
    hbi-infer qa --video samples/one.mp4 --question "what colour is the circle?"
    """  # noqa: D301
    from hbi_infer.tasks.qa import answer_clips, check_questions

    style = output_style(as_json, as_csv)
    if not (question or questions):
        raise typer.BadParameter("give --question, or --questions FILE")
    folder_options = FolderOptions(index_file, workers, rebuild, no_update).checked(video)
    texts = [*(question or ()), *read_lines(questions)]
    check_questions(texts)
    hbi = load_model(bundle, device, verbose)
    hbi.bundle.require("qa")
    options = Answering(top_k=top_k, min_probability=threshold, all_clips=all_clips)
    with find_clips(hbi, video, folder_options) as found:
        answers = answer_clips(hbi, texts, found.clips, options)
        if style == "json":
            asked = [
                {**text_document(hbi, text, "question"), "answers": [answer.to_json() for answer in of_text]}
                for text, of_text in zip(texts, answers, strict=True)
            ]
            stdout.emit_json(found.document | {"min_probability": threshold, "questions": asked})
        else:
            tables.show_answers(list(zip(texts, answers, strict=True)), style, as_given(video))
    end_with(found.failures, "answered about")


@app.command()
def caption(
    video: Annotated[Path, typer.Argument(metavar="VIDEO_OR_DIR", help="The video, or a folder of videos.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write a .jsonl, .csv, .srt or .vtt; else to the terminal."),
    ] = None,
    out_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="jsonl, csv, srt or vtt; else by --out's suffix.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what --out names.")] = False,
    beam_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Candidates kept: {Decoding().beam_size}, or 1 with --nucleus."),
    ] = None,
    length_penalty: Annotated[
        float, typer.Option(metavar="P", min=0, help="0 favours short captions.")
    ] = Decoding().length_penalty,
    no_repeat_ngram: Annotated[
        int, typer.Option(metavar="N", min=0, help="No run of so many tokens occurs twice; 0 allows all.")
    ] = Decoding().no_repeat_ngram,
    nucleus: Annotated[
        float | None, typer.Option(metavar="P", help="Draw from the fewest tokens of this probability together.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Of the probabilities that --nucleus draws from.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Of what --nucleus draws.")] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="The most tokens of a caption.")
    ] = Decoding().max_tokens,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a caption for each clip of a video, or of every video in a folder; what is new in it is indexed first.

    A video that is indexed is not decoded again. Captions are kept as they are written: interrupted, the same command
    goes on where it stopped. Subtitles of a folder go into another one, a file for each video. Without --out, into a
    pipe go tab-separated lines: file, clip, start and end in seconds, caption, its log-probability.

    \b
    hbi-infer caption samples/ --out captions.jsonl
    hbi-infer caption samples/ --out subtitles --format srt
    """  # noqa: D301
    style = output_style(as_json, as_csv)
    target = caption_target(video, out, out_format, overwrite=force)
    if target and (as_json or as_csv):
        raise typer.BadParameter("--json and --csv are for the terminal; what --out names has a format of its own")
    if nucleus is None and (temperature is not None or seed is not None):
        raise typer.BadParameter("--temperature and --seed go with --nucleus")
    folder_options = FolderOptions(index_file, workers, rebuild, no_update).checked(video)
    default = Decoding()
    options = Decoding(
        max_tokens=max_tokens,
        beam_size=beam_size or (default.beam_size if nucleus is None else 1),
        length_penalty=length_penalty,
        no_repeat_ngram=no_repeat_ngram,
        nucleus=nucleus,
        temperature=default.temperature if temperature is None else temperature,
        seed=default.seed if seed is None else seed,
    )
    if target:
        target.check()
    hbi = load_model(bundle, device, verbose)
    hbi.bundle.require("caption")
    with kept_captions(hbi, target, options) as unfinished, find_clips(hbi, video, folder_options) as found:
        captions = write_captions(hbi, found.clips, options, unfinished)
        if target and unfinished:
            target.write(captions, as_given(video))
            unfinished.remove()
            stdout.emit(f"{len(captions)} captions in {stdout.printable(str(target.out))}\n")
        elif style == "json":
            written = [made.to_json() for made in captions]
            stdout.emit_json(found.document | {"decoding": asdict(options), "captions": written})
        else:
            tables.show_written(captions, style, as_given(video))
    end_with(found.failures, "captioned")


@app.command()
def info(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder or zip; else the embedded model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a bundle is: its sizes, tasks, origin and measured quality; and check its files against their hashes.

    \b
    hbi-infer info
    """  # noqa: D301
    from hbi_infer.model.bundle import Bundle, default_bundle_path

    loaded = Bundle.load(bundle or default_bundle_path())
    loaded.verify()
    if as_json:
        stdout.emit_json({"path": str(loaded.path), "sha256": loaded.sha256, **loaded.manifest.to_document()})
    else:
        tables.show_bundle(loaded)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed and which devices really run a graph, and how to mend what does not work.

    Each device runs a small graph in a process of its own. Exit code 1 if something that is installed does not work.

    \b
    hbi-infer doctor
    """  # noqa: D301
    from hbi_infer.doctor import examine

    diagnosis = examine()
    if as_json:
        stdout.emit_json(diagnosis.to_document())
    else:
        stdout.emit(diagnosis.to_text())
    raise typer.Exit(1 if diagnosis.problems else 0)


@app.command()
def bench(
    bundle: BundleOption = None,
    random: Annotated[
        str | None, typer.Option(metavar="SIZE", help="A made-up model of this size: vit-b-32 or vit-b-16.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The bundle's model as hbi-train wrote it, for PyTorch.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICES", help="cpu,openvino,torch,torch:compile...; may be repeated. By default what can run."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,N", help="Items that go through a graph together.")] = ",".join(
        map(str, Plan.batches)
    ),
    stage: Annotated[
        list[str] | None, typer.Option(metavar="STAGES", help="Only these, such as 'encode,text encode'.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long each measurement takes.")] = Plan.seconds,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of the processor.")] = None,
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="Videos to decode; else some are drawn.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to it.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture, as PNG.")] = None,
) -> None:
    """Measure how fast a model runs on several devices, stage by stage, and whether they give the same.

    Each device runs in a process of its own. Exit code 3 if one could not run or gives wrong tokens; the table says so.

    \b
    hbi-infer bench --random vit-b-32 --device cpu,openvino,torch --batch 1,4 --plot speed.png
    """  # noqa: D301
    from hbi_infer.bench import report as bench_report
    from hbi_infer.bench.run import run

    bench_report.check_targets(json_file, plot)
    plan = Plan(
        devices=as_list(device),
        batches=whole_numbers(batch, "--batch"),
        seconds=seconds,
        threads=threads,
        videos=videos,
        stages=as_list(stage) or Plan.stages,
    )
    bundle, checkpoint = _benched_model(bundle, random, checkpoint)
    plan = replace(plan, bundle=bundle, checkpoint=checkpoint)
    report = run(plan, "hbi_export.pytorch.bench_worker", bench_report.show_progress)
    if json_file:
        bench_report.write_json(report, json_file)
    if plot:
        from hbi_infer.bench.picture import picture

        plot.write_bytes(picture(report))
    stdout.emit(bench_report.to_text(report))
    raise typer.Exit(SOME_FAILED if bench_report.unreliable(report) else 0)


def main() -> None:
    """Run the command line."""
    stdout.prepare_streams()
    warnings.showwarning = lambda message, *_args, **_options: stdout.note("warning", str(message))
    try:
        with stdout.errors_told():
            app(prog_name="hbi-infer")
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        stdout.note("error", "interrupted: what was indexed or written before is kept")
        sys.exit(INTERRUPTED)


def _benched_model(bundle: Path | None, random: str | None, checkpoint: Path | None) -> tuple[Path | None, Path | None]:
    """The bundle and the checkpoint to measure, made where random ones are asked for."""
    if random is None:
        return bundle, checkpoint
    if bundle or checkpoint:
        raise typer.BadParameter("--random makes a bundle and a checkpoint of its own: leave --bundle and --checkpoint")
    try:
        from hbi_export.random_bundle import random_model
    except ImportError as error:
        raise InputError(
            f'--random makes a model with PyTorch, and {error.name} is not installed: pip install "hbi-infer[export]"'
        ) from error
    return random_model(random, lambda text: stdout.note("note", text))


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
    if video is not None and not is_file(video):
        raise InputError(f"there is no file {video}: give a video to search with")


Answers = list[tuple[str, list["Match"]]]


def _search(opened: Index, texts: list[str], like: Path | None, options: dict[str, Any]) -> Answers:
    """What was asked for, with what was found."""
    from hbi_infer.tasks.search import search

    if like is not None:
        return [(str(like), opened.like(like, **options))]
    return list(zip(texts, search(opened, texts, **options), strict=True))


def _rank_captions(hbi: HBI, video: Path, captions: list[str], top_k: int, style: tables.Style) -> None:
    ranked = hbi.rank_captions(video, captions, top_k=top_k)
    if style == "json":
        document = {"model": model_document(hbi), "video": str(video)}
        stdout.emit_json(document | {"captions": [match.to_json() for match in ranked]})
    else:
        tables.show_captions(str(video), ranked, style)


def _answers_document(hbi: HBI, answers: Answers, like: Path | None) -> list[dict[str, Any]]:
    """What JSON says for each query: where it was cut if it was too long, and what was found."""
    if like is not None:
        return [{"like": asked, "results": [match.to_json() for match in found]} for asked, found in answers]
    return [
        {**text_document(hbi, asked, "query"), "results": [match.to_json() for match in found]}
        for asked, found in answers
    ]
