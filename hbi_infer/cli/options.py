"""Options that several commands of `hbi-infer` have, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="A bundle's folder or zip, shapes, everyday, or owner/name of the hub; see hbi-infer models.",
    ),
]
FoldersOption = Annotated[
    list[Path], typer.Option("--videos", metavar="DIR", help="A folder of videos; may be repeated.")
]
BundlesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bundle", metavar="MODEL", help="A model; may be repeated. See the option --bundle of hbi-infer retrieve."
    ),
]
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
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        help="Leave out files and folders such as '*.gif' or drafts; may be repeated. The index keeps it; '' ends it.",
    ),
]
AllFilesOption = Annotated[
    bool | None,
    typer.Option("--all-files/--no-all-files", help="Look into files without a video's suffix. The index keeps it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say which device is used and why, and what is left out of a folder.")
]
