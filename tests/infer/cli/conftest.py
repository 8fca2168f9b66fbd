"""A bundle and a library of videos for the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.command_line import run
from tests.builders.tiny_bundle import write_tiny_bundle, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, of which one is damaged."""
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "green then blue.mkv", "green", "blue", seconds_each=2.0)
    write_video(folder / "more" / "blue.mp4", "blue", seconds_each=1.0)
    (folder / "damaged.mp4").write_bytes(b"\0" * 100)
    return folder


@pytest.fixture(scope="module")
def indexed(library: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index's file of the library."""
    path = tmp_path_factory.mktemp("index") / "library.sqlite"
    # One worker: what is equally good is found in the order of indexing.
    assert run("index", library, "--bundle", bundle, "--index", path, "--workers", "1").returncode == 3
    return path


@pytest.fixture
def search(library: Path, bundle: Path, indexed: Path) -> Iterator[list[str]]:
    """The arguments of a search of the indexed library for everything in it, however badly it matches."""
    shared = ["--videos", str(library), "--bundle", str(bundle), "--index", str(indexed)]
    return ["retrieve", *shared, "--min-match", "0"]
