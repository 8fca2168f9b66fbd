"""Each example runs as its own first lines say, on the samples, and says what is right of them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

EXPECTED = {
    "03_combine_and_save.py": "1. small-red-circle-moves-left-then-blue-square-blinks.mp4: 01 small-red-circle-",
    "02_ask_and_caption.py": "0.0 to 4.0 s: two big red rings move left",
    "01_search_a_folder.py": "1. small-red-circle-moves-left-then-blue-square-blinks.mp4, 0.0 to 4.0 s",
}


def test_no_example_is_forgotten() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_says_what_is_right(name: str, tmp_path: Path) -> None:
    text = (ROOT / "examples" / name).read_text()
    command = re.search(rf"^python (examples/{name}.*)$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        [sys.executable, *shlex.split(command[1].replace(" found ", f" {tmp_path / 'found'} "))],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout
