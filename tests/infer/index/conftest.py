"""A folder of videos and its index, of a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.stored_videos import LAYOUT, put, video
from tests.builders.tiny_bundle import write_tiny_bundle, write_video
from tests.builders.updates import NUM_VIDEOS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> HBI:
    return HBI.load(bundle, device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos: red; green, then blue, in clips of their own; and one that is damaged."""
    folder = tmp_path / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "sub" / "green_blue.mkv", "green", "blue")
    (folder / "damaged.mp4").write_bytes(b"no video" * 100)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture
def index(folder: Path, model: HBI) -> Iterator[Index]:
    with Index.open(folder, model, location=folder.parent / "index.sqlite") as index:
        yield index


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    folder = tmp_path / "videos"
    folder.mkdir()
    return Identity(bundle_sha256="a" * 64, layout=LAYOUT, folder=folder)


@pytest.fixture
def store(tmp_path: Path, identity: Identity) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "cache" / "index.sqlite", identity)) as store:
        yield store


@pytest.fixture
def file(store: SqliteStore, tmp_path: Path) -> Path:
    """A closed index of two videos."""
    put(store, video("a.mp4"), video("b.mp4", seed=1))
    store.close()
    return tmp_path / "cache" / "index.sqlite"


@pytest.fixture
def many(tmp_path: Path, bundle: Path) -> tuple[Path, Path, Path]:
    """A folder of twenty short videos, the index's place and the bundle."""
    folder = tmp_path / "videos"
    first = write_video(folder / "00.mp4", "red", seconds_each=0.5)
    for number in range(1, NUM_VIDEOS):
        shutil.copyfile(first, folder / f"{number:02}.mp4")
    return folder, tmp_path / "index.sqlite", bundle
