"""Runs a command's `main` in this process, which takes a fraction of the time that a process of its own does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from unittest.mock import patch

from tests.paths import ROOT

HIDDEN_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def run_main(
    main: Callable[[], object], *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; return its exit code, stdout and stderr. An exception that it does not handle is raised."""
    command = ["hbi", *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    err.reconfigure(errors="backslashreplace")
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", command))
        stack.enter_context(patch.dict(os.environ, env or {}))
        stack.enter_context(chdir(ROOT))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        for hidden in HIDDEN_WARNINGS:
            warnings.simplefilter("ignore", hidden)
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        code = _exit_code(main)
    texts = (stream.buffer.getvalue().decode(errors="surrogateescape") for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(command, code, *texts)


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
