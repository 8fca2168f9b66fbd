"""Wrong usage is told without what could move the cursor."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

import hbi_export.cli
import hbi_infer.cli
import hbi_training.cli

EVIL = "\x1b]0;x\x07\x9b31m\u202e\x7f"
SHOWN = r"\x1b]0;x\x07\x9b31m\u202e\x7f"
UNBROKEN = {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (hbi_infer.cli.app, [EVIL]),
        (hbi_infer.cli.app, [f"--{EVIL}"]),
        (hbi_infer.cli.app, ["retrieve", f"--{EVIL}"]),
        (hbi_infer.cli.app, ["index", ".", EVIL]),
        (hbi_infer.cli.app, ["retrieve", "--newer", EVIL]),
        (hbi_infer.cli.app, ["caption", ".", "--out", f"{EVIL}.txt"]),
        (hbi_infer.cli.app, ["bench", "--batch", EVIL]),
        (hbi_training.cli.app, [EVIL]),
        (hbi_training.cli.app, ["data", EVIL]),
        (hbi_training.cli.app, ["retrieval", f"--{EVIL}"]),
        (hbi_export.cli.app, ["onnx", "a", f"--{EVIL}"]),
        (hbi_export.cli.app, ["onnx", "a", "--weights", EVIL]),
    ],
)
def test_what_was_typed_is_shown_with_escapes(program: typer.Typer, arguments: list[str]) -> None:
    done = CliRunner().invoke(program, arguments, env=UNBROKEN)
    assert done.exit_code == 2
    assert "Error" in done.stderr
    assert not set(done.output + done.stderr) & set(EVIL) - set(SHOWN)
    assert SHOWN in done.stderr or EVIL.encode("unicode_escape").decode() in done.stderr.replace("\\\\", "\\")


def test_a_message_of_several_lines_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(hbi_infer.cli.app, ["index"])
    assert done.exit_code == 2
    assert "Missing argument 'DIR'" in done.stderr
    assert "\\n" not in done.stderr
