"""Streams of a command: errors as lines, names that cannot move the cursor."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from hbi_infer.errors import InputError
from hbi_infer.render.stdout import bugs_told, clock, emit, emit_json, errors_told, note, printable


@pytest.mark.parametrize(("number", "is_told"), [(errno.EACCES, True), (errno.ENOSPC, True), (errno.ENOENT, False)])
def test_the_last_line_of_defence_hides_no_bug(number: int, is_told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit if is_told else OSError), errors_told():
        raise OSError(number, "why", "some/file")
    assert capsys.readouterr().err == ("error: cannot use some/file (why)\n" if is_told else "")


def test_names_cannot_move_the_cursor_or_break_a_line() -> None:
    assert printable("a\x1b[31mb\nc\td\udc80é \u202e") == "a\\x1b[31mb\\nc\\td\\udc80é \\u202e"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (75.25, "1:15.2"), (59.96, "1:00.0"), (3661, "1:01:01.0"), (7199.99, "2:00:00.0")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_an_error_of_the_user_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, errors_told():
        raise InputError("there is no\nfile")
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: there is no\\nfile\n"


def test_a_note_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    note("warning", "a\tb")
    assert capsys.readouterr() == ("", "warning: a\\tb\n")


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"path": "\udcff é"})
    written = capsys.readouterr().out
    assert written.isascii()
    assert json.loads(written) == {"path": "\udcff é"}
    emit_json({"path": "\x7f\x9b\x1b"})
    written = capsys.readouterr().out
    assert written == '{\n  "path": "\\u007f\\u009b\\u001b"\n}\n'
    assert json.loads(written) == {"path": "\x7f\x9b\x1b"}


def test_a_terminal_gets_escapes_and_a_pipe_the_text_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a\tb\x1b]0;x\x07\r\n\x9b31m\u202e\n"
    emit(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    emit(text)
    assert capsys.readouterr().out == "a\tb\\x1b]0;x\\x07\\r\n\\x9b31m\\u202e\n"


def test_the_trace_of_a_bug_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, bugs_told():
        raise KeyError("a\x1b]0;x\x07".join("ab"))
    assert end.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n  File ")
    assert "\x1b" not in shown
    with pytest.raises(KeyboardInterrupt), bugs_told():
        raise KeyboardInterrupt


def test_stdout_takes_bytes_of_names_and_escapes_letters_that_it_lacks() -> None:
    code = "from hbi_infer.render.stdout import emit, prepare_streams; prepare_streams(); emit('\\udcff é')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert done.stdout == b"\xff \\xe9"
