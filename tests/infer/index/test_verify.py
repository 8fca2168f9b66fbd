"""Reading a whole index and mending it: changed rows, lists of SQLite's that lead nowhere, files beyond mending."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress
from hbi_infer.index.verify import verify_file
from hbi_infer.options import Searching
from tests.builders.stored_videos import content, put, video

VIDEOS = {f"{n}.mp4": video(f"{n}.mp4", 1 + n % 3, seed=n, duration_seconds=n / 3) for n in range(12)}


@pytest.fixture
def path(tmp_path: Path, identity: Identity) -> Path:
    """A closed index of twelve videos."""
    with closing(SqliteStore(tmp_path / "index.sqlite", identity)) as store:
        put(store, *VIDEOS.values())
    return tmp_path / "index.sqlite"


def everything(path: Path, identity: Identity) -> dict[str, object]:
    with closing(SqliteStore(path, identity)) as store:
        return content(store)


def test_a_sound_index_stays_as_it_is(path: Path, identity: Identity) -> None:
    before, seen = path.read_bytes(), list[IndexProgress]()
    found = verify_file(path, identity, progress=seen.append)
    assert found.to_json() == {"videos": 12, "clips": 24, "damaged": [], "fault": ""}
    assert [(progress.videos_done, progress.videos_total) for progress in seen] == [(n, 12) for n in range(1, 13)]
    assert (seen[-1].clips, seen[-1].path) == (24, "11.mp4")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "lost", "fault"),
    [
        ("UPDATE tokens SET record = zeroblob(length(record)) WHERE clip_id = 3", ["1.mp4"], ""),
        ("UPDATE tokens SET record = 17 WHERE clip_id = 3", ["1.mp4"], ""),
        ("UPDATE pooled SET vector = (SELECT vector FROM pooled WHERE clip_id = 1) WHERE clip_id = 2", ["1.mp4"], ""),
        ("UPDATE clips SET start_seconds = 2.5 WHERE clip_id = 1", ["0.mp4"], ""),
        ("UPDATE clips SET video_id = 2 WHERE clip_id = 1", ["0.mp4"], ""),
        ("DELETE FROM tokens WHERE clip_id = 3", ["1.mp4"], ""),
        ("DELETE FROM clips WHERE clip_id = 3", ["1.mp4"], ""),
        ("UPDATE videos SET path = 'x.mp4' WHERE video_id = 1", ["0.mp4"], "what it says of a video has changed"),
        ("UPDATE videos SET duration_seconds = 5 WHERE video_id = 1", ["0.mp4"], "what it says of a video has changed"),
        ("DELETE FROM videos WHERE video_id = 1", ["0.mp4"], "videos are missing"),
        ("INSERT INTO tokens VALUES (99, x'00')", [], "clips that belong to no video"),
        ("UPDATE meta SET value = 'x' WHERE key = 'folder'", [], "what it says of itself has changed"),
        ("DELETE FROM meta WHERE key = 'layout'", [], "it does not say what it is of"),
        ("DROP TABLE meta", [], "no such table: meta"),
        ("PRAGMA user_version = 2", [], "duplicate column name: first_clip"),
        ("DROP TABLE tokens", list(VIDEOS), "no such table: tokens"),
    ],
)
def test_what_is_damaged_is_taken_out_and_the_rest_is_kept(
    path: Path, identity: Identity, damage: str, lost: list[str], fault: str
) -> None:
    expected = everything(path, identity)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(damage)
    found = verify_file(path, identity)
    assert (found.fault, found.is_sound) == (fault, False)
    if not fault:
        assert found.damaged == [VideoFault(name, "has changed in the index", "damaged") for name in lost]
    assert everything(path, identity) == {name: of for name, of in expected.items() if name not in lost}
    assert verify_file(path, identity).is_sound
    with closing(SqliteStore(path, identity)) as store:
        put(store, *(VIDEOS[name] for name in lost))
    assert everything(path, identity) == expected


def test_a_changed_bit_anywhere_is_mended(path: Path, identity: Identity) -> None:
    expected, whole, random = everything(path, identity), path.read_bytes(), Random(1)
    kept = 0
    for number in range(40):
        position = random.randrange(len(whole))
        if number % 2:  # the head of a page, but for the first one
            position = max(1, position // 4096) * 4096 + random.randrange(64)
        changed = bytearray(whole)
        changed[position] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        verify_file(path, identity)
        mended = everything(path, identity)
        assert mended == {name: expected[name] for name in mended}, f"bit at {position}"
        kept += len(mended)
    assert kept > 40 * 12 * 0.8, "most videos need not be indexed anew"


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def spoil_all_but_the_mark(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\xa5" * 68 + content[68:72] + b"\xa5" * (len(content) - 72))


@pytest.mark.parametrize(
    ("damage", "fault"), [(truncate, "it has 0 bytes"), (spoil_all_but_the_mark, "file is not a database")]
)
def test_a_file_beyond_mending_is_made_anew(
    path: Path, identity: Identity, damage: Callable[[Path], None], fault: str
) -> None:
    damage(path)
    assert verify_file(path, identity).fault == fault
    assert everything(path, identity) == {}
    assert verify_file(path, identity).is_sound


def test_what_is_no_index_or_of_another_model_is_left_alone(path: Path, identity: Identity, tmp_path: Path) -> None:
    with pytest.raises(IndexStoreError, match="there is no index"):
        verify_file(tmp_path / "none.sqlite", identity)
    before = path.read_bytes()
    with pytest.raises(IndexStoreError, match="another model"):
        verify_file(path, Identity("b" * 64, identity.layout, identity.folder))
    assert path.read_bytes() == before
    (tmp_path / "notes.txt").write_text("notes " * 100)
    with pytest.raises(IndexStoreError, match="is not an index and is left alone"):
        verify_file(tmp_path / "notes.txt", identity)
    assert (tmp_path / "notes.txt").read_text() == "notes " * 100


def test_a_damaged_index_is_mended_from_the_videos(index: Index, folder: Path, model: HBI) -> None:
    index.update(workers=0)
    options = Searching(all_clips=True)
    expected = index.search("blue", options)
    location = index.store.path
    index.close()
    with closing(sqlite3.connect(location, isolation_level=None)) as connection:
        connection.execute("UPDATE tokens SET record = zeroblob(length(record)) WHERE clip_id = 2")
    with Index.open(folder, model, location=location) as damaged, pytest.raises(IndexStoreError, match="--verify"):
        damaged.search("blue")
    found = Index.verify(folder, model, location=location)
    assert (found.videos, len(found.damaged)) == (2, 1)
    with Index.open(folder, model, location=location) as mended:
        assert mended.update(workers=0).added == 1
        assert mended.search("blue", options) == expected


def test_nothing_is_taken_out_while_there_is_nothing_to_mend_from(index: Index, folder: Path, model: HBI) -> None:
    index.update(workers=0)
    index.close()
    with closing(sqlite3.connect(index.store.path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM tokens WHERE clip_id = 2")
    folder.rename(folder.parent / "unplugged")
    folder.mkdir()
    before = index.store.path.read_bytes()
    with pytest.raises(InputError, match="no videos"):
        Index.verify(folder, model, location=index.store.path)
    assert index.store.path.read_bytes() == before
