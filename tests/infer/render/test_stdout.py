"""Streams of a command: errors as lines, names that cannot move the cursor."""

from __future__ import annotations

import errno

import pytest

from hbi_infer.render.stdout import clock, errors_told, printable


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
