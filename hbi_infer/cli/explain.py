"""The command `hbi-infer explain`."""

from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.cli.inputs import check_texts, load_model, model_document, output_style
from hbi_infer.cli.options import (
    BundleOption,
    DeviceOption,
    IndexOption,
    JsonOption,
    VerboseOption,
)
from hbi_infer.files import check_target
from hbi_infer.options import Explaining
from hbi_infer.render import stdout


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
    from hbi_infer.render import tables
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
    check_texts([query])
    hbi = load_model(bundle, device, verbose)
    explanation = hbi.explain(video, query, Explaining(clip=clip, at_seconds=at), videos=videos, location=index_file)
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
