"""Runs `hbi-infer` as its users do: into pipes, on a terminal, without root's rights."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbi_infer.cli import main
from tests.builders.in_process import run_main
from tests.paths import ROOT

COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()"]


DROP_RIGHTS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right)
os.execvp(sys.argv[1], sys.argv[1:])
"""


WITHOUT_ROOTS_RIGHTS = [sys.executable, "-c", DROP_RIGHTS]
"""Before a command: root may not read what is closed to it either."""


def run(
    *arguments: str | Path, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `hbi-infer` with stdout and stderr into pipes; in a process of its own behind a prefix."""
    env = {"COLUMNS": "100", **(env or {})}
    if not prefix:
        return run_main(main, *arguments, env=env)
    return subprocess.run(
        [*prefix, *COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def unmeasured() -> dict[str, str]:
    """The environment of a process that could not write, at its end, what measures coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def run_python(
    code: str, *arguments: object, prefix: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


IN_TURN = """
import json, sys
from hbi_infer.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
"""
"""Runs commands one after the other, which takes less time than a process for each."""


def errors_in_turn(commands: list[list[str | Path]]) -> list[str]:
    """The error of each command, as an ordinary user; every one must end with one line and exit code 1."""
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run(
        [*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", IN_TURN, given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert (lines[1::2], done.stdout) == (["exit code 1"] * len(commands), ""), done.stderr
    return lines[::2]


def on_terminal(*arguments: str | Path) -> tuple[int, str]:
    """Run `hbi-infer` on a terminal of its own; its exit code and what was shown, without colours."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(COMMAND[0], [*COMMAND, *map(str, arguments)], {**os.environ, "COLUMNS": "160", "TERM": "xterm"})
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")
