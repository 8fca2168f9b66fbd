"""The commands `hbi-infer info` and `hbi-infer doctor`."""

from typing import Annotated

import typer

from hbi_infer.cli.inputs import find_bundle
from hbi_infer.cli.options import JsonOption
from hbi_infer.render import stdout


def info(
    bundle: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As for --bundle; else the default model.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a bundle is: its sizes, tasks, origin and measured quality; and check its files against their hashes.

    \b
    hbi-infer info
    """  # noqa: D301
    from hbi_infer.model.bundle import Bundle
    from hbi_infer.render import tables

    loaded = Bundle.load(find_bundle(bundle))
    loaded.verify()
    if as_json:
        stdout.emit_json({"path": str(loaded.path), "sha256": loaded.sha256, **loaded.manifest.to_document()})
    else:
        tables.show_bundle(loaded)


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
