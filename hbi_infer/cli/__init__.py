"""The command `hbi-infer`: each command reads its options, calls the library and shows the results.

Exit codes: 0 done; 1 an error, told in one line; 2 wrong usage; 3 done, but some files could not be read
or some devices could not run; 130 interrupted with Ctrl-C; 141 nobody reads the output any more.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from hbi_engines.operating_system import one_thread_a_product
from hbi_infer import __version__
from hbi_infer.cli.about import doctor, info
from hbi_infer.cli.bench import bench
from hbi_infer.cli.caption import caption
from hbi_infer.cli.explain import explain
from hbi_infer.cli.index import index
from hbi_infer.cli.mcp import mcp
from hbi_infer.cli.models import models
from hbi_infer.cli.qa import qa
from hbi_infer.cli.retrieve import retrieve
from hbi_infer.cli.serve import serve
from hbi_infer.render import stdout
from hbi_infer.render.usage import PrintableGroup

INTERRUPTED = 130

app = typer.Typer(cls=PrintableGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
for command in (index, retrieve, explain, qa, caption, serve, mcp, info, doctor, bench):
    app.command()(command)
app.add_typer(models, name="models")


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


def main() -> None:
    """Run the command line."""
    one_thread_a_product()
    stdout.prepare_streams()
    warnings.showwarning = lambda message, *_args, **_options: stdout.note("warning", str(message))
    try:
        with stdout.bugs_told(), stdout.errors_told():
            app(prog_name="hbi-infer")
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        stdout.note("error", "interrupted: what was indexed or written before is kept")
        sys.exit(INTERRUPTED)
