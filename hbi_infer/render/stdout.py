"""Writes results to stdout, and notes, warnings and errors to stderr, a line each."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from hbi_infer.errors import HBIError, InputError

CLOSED_PIPE = 141
"""Exit code when nobody reads stdout any more; a shell reports it for a command that a closed pipe ended."""


def prepare_streams() -> None:
    """Lets stdout take any file name and any letter, also where stdout or stderr was closed before the start."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Without a stderr, print writes to stdout.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("byte_or_escape", _byte_or_escape)
        sys.stdout.reconfigure(errors="byte_or_escape")


def _byte_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Returns the raw byte of a file name that is no text, or an escape for a letter that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


USERS_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Error numbers of files whose cause is outside the program, such as a full disk."""


@contextmanager
def errors_told() -> Iterator[None]:
    """Turns errors that the user can mend into a line on stderr and exit code 1; a bug keeps its trace."""
    try:
        yield
    except HBIError as error:
        note("error", str(error))
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.errno not in USERS_ERRORS:
            raise
        note("error", f"cannot use {os.fsdecode(error.filename)} ({error.strerror})")
        sys.exit(1)


@contextmanager
def bugs_told() -> Iterator[None]:
    """Shows the trace of an exception that nothing expected, which may quote what was typed, and ends with 1."""
    try:
        yield
    except Exception:  # noqa: BLE001 - any bug
        import traceback  # late: every start of the command would wait for it

        sys.stderr.write(printable_lines(traceback.format_exc()))
        sys.exit(1)


def emit(text: str) -> None:
    """Writes to stdout at once; ends the process quietly if nobody reads any more, as behind `| head`.

    A terminal is shown the text as `printable_lines`; a pipe or a file gets it as it is.

    Raises:
        InputError: The text cannot be written, as where stdout is a file on a full disk.
    """
    try:
        sys.stdout.write(printable_lines(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        _discard(sys.stdout)
        raise InputError(f"cannot write the results ({error.strerror}): send them to another place") from error


def _discard(stream: TextIO) -> None:
    """Redirects a stream that cannot be written to nowhere: the interpreter flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(document: dict[str, Any]) -> None:
    """Writes a JSON document to stdout, in ASCII letters, so that any file name can be written."""
    emit(json.dumps(document, indent=2).replace("\x7f", "\\u007f") + "\n")


def note(kind: Literal["error", "note", "warning"], text: str) -> None:
    """Writes one line to stderr; does nothing if nobody reads it any more, as behind `2>&1 | head`."""
    try:
        print(f"{kind}: {printable(text)}", file=sys.stderr)  # noqa: T201
    except OSError:
        _discard(sys.stderr)


def printable(text: str) -> str:
    r"""Returns the text with an escape (such as \n) for every letter that could move the cursor or break a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Returns the text with an escape for every letter that could move the cursor, but for line feeds and tabs."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def clock(seconds: float) -> str:
    """Returns seconds as hours, minutes and seconds: 75.25 as 1:15.2, 3661 as 1:01:01.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
