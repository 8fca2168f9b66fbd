"""Tells wrong usage of a command without letting what was typed reach the terminal as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from hbi_infer.render.stdout import printable_lines

# Typer gives the root of these errors no public name.
_UsageError: Any = typer.BadParameter.__mro__[2]


class PrintableGroup(TyperGroup):
    """The commands of a program; errors about their arguments show escapes for what could move the cursor."""

    def make_context(self, *given: Any, **options: Any) -> Any:
        """Reads the program's own arguments."""
        with _printable_errors():
            return super().make_context(*given, **options)

    def invoke(self, ctx: Any) -> Any:
        """Reads the arguments of the command that is asked for and runs it."""
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        text = printable_lines(error.format_message())
        error.format_message = lambda: text
        raise
