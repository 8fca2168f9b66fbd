"""Progress bars: on a terminal, and not elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from hbi_infer.render.progress import build_bar, download_bar, progress_bar

SCRIPT = """
from hbi_infer.render.progress import progress_bar
with progress_bar("counting", "sheep") as show:
    for done in range({calls}):
        show(done, 7, 2 * done)
"""


def test_no_bar_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", "sheep") as show:
        show(1, 7, 2)
    assert capsys.readouterr() == ("", "")


def on_terminal(script: str) -> str:
    """Runs a script whose stderr is a terminal; returns what is shown there."""
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=terminal, env={**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(reader, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(reader)
    assert process.wait(timeout=30) == 0
    return shown.decode()


@pytest.mark.parametrize(("calls", "is_shown"), [(4, True), (0, False)])
def test_a_bar_is_shown_from_the_first_call_on(calls: int, is_shown: bool) -> None:
    shown = on_terminal(SCRIPT.format(calls=calls))
    assert ("counting" in shown) is is_shown
    assert ("3/7 sheep, " in shown.replace("\x1b[0m", "").replace("\x1b[32m", "")) is is_shown


@pytest.mark.parametrize(
    ("bar", "last", "is_shown"),
    [
        ("download_bar", 3_000_000, "3.0/7.0 MB"),
        ("build_bar", 3_000_000, "3000000/7000000"),
        ("download_bar", None, ""),
    ],
)
def test_bars_of_a_model_that_is_got(bar: str, last: int | None, is_shown: str) -> None:
    script = f"""
from hbi_infer.render.progress import {bar}
with {bar}() as show:
    for done in {[last] if last else []}:
        show(done, 7_000_000)
"""
    shown = on_terminal(script)
    assert is_shown in shown.replace("\x1b[0m", "").replace("\x1b[32m", "")
    assert bool(shown) == bool(is_shown)


@pytest.mark.parametrize("bar", [download_bar, build_bar])
def test_no_bar_of_a_model_where_stderr_is_no_terminal(
    bar: Callable[[], AbstractContextManager[Callable[[int, int], None]]], capsys: pytest.CaptureFixture[str]
) -> None:
    with bar() as show:
        show(1, 7)
    assert capsys.readouterr() == ("", "")
