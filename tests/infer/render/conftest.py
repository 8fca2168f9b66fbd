"""An explanation of a small video that every way of showing it shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_infer.api import HBI
from hbi_infer.tasks.explain import Explanation
from tests.builders.tiny_bundle import write_tiny_bundle, write_video


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    """Why a video that turns red at its end matches "a red video"."""
    video = write_video(
        tmp_path_factory.mktemp("library") / "one red.mp4", "green", "green", "green", "red", seconds_each=0.5
    )
    return HBI.load(bundle, device="cpu", threads=1).explain(video, "a red video")
