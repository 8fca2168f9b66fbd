"""The command `hbi-infer mcp`: its wrong usage; `tests/infer/serve/test_mcp.py` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.builders.command_line import COMMAND, run


def test_wrong_usage(tmp_path: Path, bundle: Path) -> None:
    assert run("mcp").returncode == 2
    for arguments, said in (
        (["--videos", tmp_path / "none"], "there is no folder"),
        (["--videos", tmp_path, "--bundle", tmp_path / "none"], "none"),
        (["--videos", tmp_path, "--bundle", bundle, "--no-update"], "nothing of"),
    ):
        done = run("mcp", *arguments, env={"XDG_CACHE_HOME": str(tmp_path)})
        assert (done.returncode, done.stdout, said in done.stderr) == (1, "", True), done.stderr


def test_a_package_that_is_missing_is_named(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError('no mcp')")
    python_path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [*COMMAND, "mcp", "--videos", str(tmp_path), "--bundle", str(bundle)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "hbi-infer[serve]"' in done.stderr
