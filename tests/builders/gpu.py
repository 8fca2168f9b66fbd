"""When a test that needs a GPU is skipped."""

from __future__ import annotations

import os

import pytest


def require_gpu(problem: str) -> None:
    """Skip the test where a device cannot run, and say why; fail it where the environment promised a GPU."""
    if problem and os.environ.get("HBI_REQUIRE_GPU") == "1":
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)
