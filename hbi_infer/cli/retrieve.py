"""The command `hbi-infer retrieve`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbi_infer.cli.inputs import (
    FolderOptions,
    as_given,
    check_texts,
    end_with,
    index_document,
    load_model,
    model_document,
    output_style,
    read_lines,
    tell_unfamiliar,
    updated_index,
)
from hbi_infer.cli.options import (
    AllFilesOption,
    BundleOption,
    CsvOption,
    DeviceOption,
    ExcludeOption,
    IndexOption,
    JsonOption,
    NoUpdateOption,
    RebuildOption,
    VerboseOption,
    WorkersOption,
)
from hbi_infer.cli.result_files import ResultFiles
from hbi_infer.errors import InputError
from hbi_infer.files import is_file
from hbi_infer.options import EVERYTHING, Filter, Searching
from hbi_infer.render import stdout

if TYPE_CHECKING:
    from hbi_infer.api import HBI, Index
    from hbi_infer.render.tables import Style
    from hbi_infer.tasks.search import Match

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
"""Formats of dates. By itself Typer takes a bare number, such as 2026, for seconds since 1970."""


def retrieve(
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to search.")] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="What to find; may be repeated.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="A query on each line.")] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Find what is like this video or picture (jpg, png, webp).")
    ] = None,
    join: Annotated[bool, typer.Option("--all", help="A result must match all queries, not each its own.")] = False,
    without: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What must not be there; may be repeated.")
    ] = None,
    video: Annotated[Path | None, typer.Option(metavar="VIDEO", help="Rank --captions for this video.")] = None,
    captions: Annotated[Path | None, typer.Option(metavar="FILE", help="A caption on each line.")] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="N", min=1, help="Largest number of results of a query.")
    ] = Searching().top_k,
    rerank: Annotated[
        int, typer.Option(metavar="N", min=0, help="Score the N best anew by reconstructed tokens, if the bundle can.")
    ] = 0,
    all_clips: Annotated[bool, typer.Option("--all-clips", help="A video may be found with several clips.")] = False,
    dedupe: Annotated[
        bool, typer.Option("--dedupe/--no-dedupe", help="Fold results that show the same as a better one.")
    ] = True,
    dedupe_near: Annotated[
        bool, typer.Option("--dedupe-near", help="Fold also what shows nearly the same, such as other encodings.")
    ] = False,
    min_match: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out results that match less than this; by default the model's own."),
    ] = None,
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
    save_clips: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each found moment as a video into this folder.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of the results, a .png or .html.")
    ] = None,
    edl: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a timeline for video editors: .otio, .edl or .fcpxml."),
    ] = None,
    open_first: Annotated[bool, typer.Option("--open", help="Play the first result in the desktop's player.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of --sheet and --edl.")] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
    exclude: ExcludeOption = None,
    all_files: AllFilesOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Search a folder of videos; what is new in it is indexed first.

    On a terminal the results are a table. Into a pipe or a file go tab-separated lines: query, rank, score, file,
    start, end and the times of the best frames, in seconds.

    \b
    hbi-infer retrieve --videos samples/ --query "a red circle moves left"
    hbi-infer retrieve --videos samples/ --like photo.jpg --top-k 3 --json
    hbi-infer retrieve --videos samples/ --query "a red circle" --query "a star" --all --without "a blue square"
    hbi-infer retrieve --videos samples/ --query "a red circle moves left" --save-clips found/ --sheet found.html
    hbi-infer retrieve --video samples/one.mp4 --captions captions.txt
    """  # noqa: D301
    style = output_style(as_json, as_csv)
    _check_usage(videos, bool(query or queries), like, video, captions)
    _check_combination(join, without, rerank, has_text=bool(query or queries), is_ranking=video is not None)
    if dedupe_near and not dedupe:
        raise typer.BadParameter("--dedupe-near folds what --no-dedupe leaves: give one of them")
    texts = [*(query or ()), *read_lines(queries)]
    check_texts([*texts, *(without or ())])
    if (given := like or video) is not None and not is_file(given):
        raise InputError(f"there is no file {given}: give a video {'or a picture ' if like else ''}to search with")
    files = ResultFiles(save_clips, sheet, edl, open_first, force)
    if video is not None and not files.is_empty:
        raise typer.BadParameter("--save-clips, --sheet, --edl and --open go with --query (or --queries) and --like")
    files.check()
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
    options = Searching(
        top_k=top_k,
        where=where,
        all_clips=all_clips,
        rerank=rerank,
        without=tuple(without or ()),
        dedupe="near" if dedupe_near else "same" if dedupe else "off",
    )
    with updated_index(
        hbi, videos, FolderOptions(index_file, workers, rebuild, no_update, exclude, all_files, verbose)
    ) as (opened, report):
        if like:
            answers = [_found_like(opened, like, options)]
        else:
            answers = [_found_all(opened, texts, options)] if join else _found(opened, texts, options)
        least = hbi.bundle.manifest.min_match if min_match is None else min_match
        answers = [each.without_poor_matches(least) for each in answers]
        _show(answers, files, style, index_document(opened, report), as_given(videos))
        _tell_what_is_left_out(answers, least, as_given(videos))
        tell_unfamiliar((match for each in answers for match in each.matches), "scores")
        if where != EVERYTHING and not any(each.matches or each.left_out for each in answers):
            stdout.note("note", f"none of the {opened.store.num_clips()} indexed clips passes the filters")
    end_with(report.failed if report else [], "searched", also_failed=bool(files.failed))


def _check_usage(
    videos: Path | None, has_text: bool, like: Path | None, video: Path | None, captions: Path | None
) -> None:
    if (video is None) != (captions is None):
        raise typer.BadParameter("--video and --captions go together")
    if [has_text, like is not None, video is not None].count(True) != 1:
        raise typer.BadParameter("give one of --query (or --queries), --like, and --video with --captions")
    if (videos is None) != (video is not None):
        raise typer.BadParameter("--query and --like need --videos DIR; --video with --captions takes none")


def _check_combination(join: bool, without: list[str] | None, rerank: int, *, has_text: bool, is_ranking: bool) -> None:
    if rerank and not has_text:
        raise typer.BadParameter("--rerank goes with --query (or --queries)")
    if join and not has_text:
        raise typer.BadParameter("--all joins what --query (or --queries) gives")
    if without and is_ranking:
        raise typer.BadParameter("--without goes with --query (or --queries) and --like")
    if rerank and (join or without):
        raise typer.BadParameter("--rerank scores one text: it does not go with --all and --without")


@dataclass(frozen=True)
class _Found:
    """The matches of a query, what JSON says of the query, and the results that were left out."""

    asked: str
    document: dict[str, Any]
    matches: "list[Match]"
    left_out: "Sequence[Match]" = ()

    def without_poor_matches(self, min_match: float) -> "_Found":
        from hbi_infer.tasks.search import is_well_matched, well_matched

        left_out = [match for match in self.matches if not is_well_matched(match, min_match)]
        return replace(self, matches=well_matched(self.matches, min_match), left_out=left_out)

    def to_json(self, saved: Sequence[Path | None]) -> dict[str, Any]:
        results = [
            match.to_json() | ({"saved_as": str(file)} if file else {})
            for match, file in zip(self.matches, saved, strict=True)
        ]
        return {**self.document, "results": results, "left_out": len(self.left_out)}


def _show(
    answers: "Sequence[_Found]",
    files: ResultFiles,
    style: "Style",
    document: dict[str, Any],
    place: Callable[[Path], str],
) -> None:
    """Shows all answers and writes what is asked for; a table comes before the files, JSON names them."""
    from hbi_infer.render import tables

    results = [(each.asked, each.matches) for each in answers]
    if style != "json":
        tables.show_matches(results, style, place)
    saved = files.write(results, place)
    if style == "json":
        shown = [each.to_json(names) for each, names in zip(answers, saved, strict=True)]
        stdout.emit_json(document | {"answers": shown})


def _tell_what_is_left_out(answers: list[_Found], min_match: float, place: Callable[[Path], str]) -> None:
    left_out = sum(len(each.left_out) for each in answers)
    if not left_out:
        return
    empty = [each for each in answers if not each.matches and each.left_out]
    nothing, nearest = f"nothing matches {len(empty)} of the queries: " if empty else "", ""
    if len(empty) == 1:
        best = empty[0].left_out[0]
        nothing = f"nothing matches {empty[0].asked!r}: "
        nearest = f"; the nearest is {place(best.path)} at {stdout.clock(best.start_seconds)}, with {best.match:.2f}"
    noun, stay = ("result matches", "stays") if left_out == 1 else ("results match", "stay")
    less = f"{left_out} {noun} less than {min_match:g} and {stay} out{nearest}"
    stdout.note("note", f"{nothing}{less}; --min-match 0 shows everything")


def _found(opened: "Index", texts: list[str], options: Searching) -> list[_Found]:
    from hbi_infer.tasks.search import search
    from hbi_infer.tasks.texts import encode_texts

    queries = encode_texts(opened.encoder, texts, "query")
    found = zip(queries.texts, queries.cut_at_words, search(opened, queries, options), strict=True)
    return [
        _Found(_asked([text], options), {"query": text, "cut_at_word": cut} | _unwanted(options), matches)
        for text, cut, matches in found
    ]


def _found_all(opened: "Index", texts: list[str], options: Searching) -> _Found:
    from hbi_infer.tasks.search import search_all
    from hbi_infer.tasks.texts import encode_texts

    queries = encode_texts(opened.encoder, texts, "query")
    document = {"queries": list(queries.texts), "cut_at_words": list(queries.cut_at_words)} | _unwanted(options)
    return _Found(_asked(texts, options), document, search_all(opened, queries, options))


def _found_like(opened: "Index", like: Path, options: Searching) -> _Found:
    return _Found(_asked([str(like)], options), {"like": str(like)} | _unwanted(options), opened.like(like, options))


def _asked(wanted: list[str], options: Searching) -> str:
    """Returns what was asked for in one line."""
    return ", without ".join([" and ".join(wanted), *options.without])


def _unwanted(options: Searching) -> dict[str, Any]:
    return {"without": list(options.without)} if options.without else {}


def _rank_captions(hbi: "HBI", video: Path, captions: list[str], top_k: int, style: "Style") -> None:
    from hbi_infer.render import tables

    ranked = hbi.rank_captions(video, captions, top_k=top_k)
    if style == "json":
        document = {"model": model_document(hbi), "video": str(video)}
        stdout.emit_json(document | {"captions": [match.to_json() for match in ranked]})
    else:
        tables.show_captions(str(video), ranked, style)
