"""The command `hbi-infer serve`: its token and its wrong usage; `tests/infer/serve/test_running.py` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from hbi_infer.cli.serve import _token
from hbi_infer.errors import InputError
from tests.builders.command_line import run


def test_who_needs_a_token(tmp_path: Path) -> None:
    assert _token(None, None, "127.0.0.1") is None
    assert _token(False, None, "0.0.0.0") is None
    assert len(_token(True, None, "localhost") or "") > 40
    assert _token(None, None, "0.0.0.0") != _token(None, None, "0.0.0.0")
    file = tmp_path / "token"
    file.write_text("a token of many letters\n")
    assert _token(None, file, "127.0.0.1") == "a token of many letters"
    with pytest.raises(typer.BadParameter):
        _token(False, file, "0.0.0.0")
    with pytest.raises(InputError, match="cannot read the token"):
        _token(None, tmp_path / "none", "0.0.0.0")


def test_wrong_usage(tmp_path: Path, bundle: Path) -> None:
    assert run("serve").returncode == 2
    (tmp_path / "token").write_text("short")
    for arguments, said in (
        (["--videos", tmp_path / "none"], "there is no folder"),
        (["--videos", tmp_path, "--key", tmp_path / "key"], "a certificate and its key go together"),
        (["--videos", tmp_path, "--token-file", tmp_path / "token"], "the token has 5 letters"),
        (["--videos", tmp_path, "--no-update"], "nothing of"),
    ):
        done = run("serve", "--bundle", bundle, "--port", "0", *arguments, env={"XDG_CACHE_HOME": str(tmp_path)})
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
