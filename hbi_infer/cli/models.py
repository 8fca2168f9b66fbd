"""The command `hbi-infer models`: models by name."""

from typing import TYPE_CHECKING, Annotated

import typer

from hbi_infer.cli.inputs import catalog_listener, output_style
from hbi_infer.cli.options import JsonOption
from hbi_infer.render import stdout
from hbi_infer.render.usage import PrintableGroup

if TYPE_CHECKING:
    from pathlib import Path

models = typer.Typer(cls=PrintableGroup, rich_markup_mode=None)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="everyday, owner/name or owner/name@revision.")]


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models that are at hand; get, remove or choose one.

    Only `get`, and the first use of a model of the hub, ask anything of the network.

    \b
    hbi-infer models
    hbi-infer models get openai/clip-vit-base-patch32
    hbi-infer models use openai/clip-vit-base-patch32
    """  # noqa: D301
    if context.invoked_subcommand is not None:
        return
    from hbi_infer.catalog.catalog import our_catalog
    from hbi_infer.render import tables

    catalog = our_catalog()
    found, damaged = catalog.at_hand()
    unfinished = catalog.shelf.unfinished()
    if as_json:
        stdout.emit_json({"models": [each.to_json() for each in found], "damaged": damaged, "unfinished": unfinished})
        return
    tables.show_models(found, output_style(as_json, as_csv=False))
    for each in found:
        if not each.is_current:
            stdout.note("note", f"{each.name} is of an older version and is made anew when it is next used")
    for line in damaged:
        stdout.note("warning", line)
    for name, size_bytes in unfinished.items():
        stdout.note(
            "note",
            f"{size_bytes / 1e6:,.1f} MB of an unfinished download of {name}: hbi-infer models get {name} goes on, "
            f"hbi-infer models remove {name} throws them away",
        )


@models.command()
def get(name: NameArgument, as_json: JsonOption = False) -> None:
    """Download a model of the hub in its newest version and convert it, or build everyday.

    \b
    hbi-infer models get openai/clip-vit-base-patch32
    """  # noqa: D301
    from hbi_infer.catalog.catalog import our_catalog

    with catalog_listener() as listener:
        path = our_catalog().get(name, listener)
    _tell(name, path, "is ready", as_json)


@models.command()
def use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As for --bundle.")], as_json: JsonOption = False
) -> None:
    """Make a model the default of all commands, after getting it if it is not at hand.

    The environment variable HBI_BUNDLE goes before this default, and --bundle before both.

    \b
    hbi-infer models use openai/clip-vit-base-patch32
    hbi-infer models use shapes
    """  # noqa: D301
    from hbi_infer.catalog.catalog import our_catalog

    with catalog_listener() as listener:
        path = our_catalog().use(name, listener)
    _tell(name, path, "is the default from now on", as_json)


@models.command()
def remove(name: NameArgument, as_json: JsonOption = False) -> None:
    """Remove a model that was built on this machine, and what is left of its download.

    \b
    hbi-infer models remove openai/clip-vit-base-patch32
    """  # noqa: D301
    from hbi_infer.catalog.catalog import our_catalog

    catalog = our_catalog()
    size_bytes, was_default = catalog.remove(name)
    if was_default:
        stdout.note("note", f"{name} was the default; it is shapes from now on")
    if as_json:
        stdout.emit_json({"name": name, "removed_bytes": size_bytes, "was_default": was_default})
    else:
        stdout.emit(f"{stdout.printable(name)} is removed, {size_bytes / 1e6:,.1f} MB\n")


def _tell(name: str, path: "Path", what: str, as_json: bool) -> None:
    from hbi_infer.model.bundle import Bundle

    bundle = Bundle.load(path)
    size_bytes = sum(bundle.sizes_bytes().values())
    if bundle.manifest.notice:
        stdout.note("note", bundle.manifest.notice)
    if as_json:
        stdout.emit_json({"name": name, "path": str(path), "sha256": bundle.sha256, "size_bytes": size_bytes})
    else:
        stdout.emit(f"{stdout.printable(name)} {what}: {stdout.printable(str(path))}, {size_bytes / 1e6:,.1f} MB\n")
