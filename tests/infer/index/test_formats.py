"""Indexes of older formats: brought up to date in place, or read where nothing can be written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.verify import verify_file
from hbi_infer.video.decoded_video import Problem
from tests.builders.stored_videos import Video, content, put, video, write_old_index

VIDEOS = (
    video("a.mp4", duration_seconds=4.0),
    video("sub/b.mp4", 3, seed=1, status="partial", reason="is cut", problem="damaged"),
    video("c.mp4", 0, status="failed", reason="took longer than 120 s to decode", problem="too_slow"),
    video("d.mp4", 1, seed=2),
)


@pytest.fixture
def expected(store: SqliteStore) -> dict[str, object]:
    put(store, *VIDEOS)
    return content(store)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_index_keeps_all_and_is_sound_afterwards(
    tmp_path: Path, identity: Identity, version: int, expected: dict[str, object]
) -> None:
    path = tmp_path / "old.sqlite"
    write_old_index(path, identity, version, *VIDEOS)
    before = path.read_bytes()
    with closing(SqliteStore(path, identity, read_only=True)) as store:
        assert content(store) == expected
    assert path.read_bytes() == before, "only read"
    for _ in range(2):
        with closing(SqliteStore(path, identity)) as store:
            assert content(store) == expected
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    with closing(SqliteStore(path, identity)) as store:
        new = video("e.mp4", 2, seed=8, status="partial", reason="is cut", problem="damaged", duration_seconds=3.0)
        put(store, video("a.mp4", 1, seed=9), new)
        assert set(store.ledger()) == {*expected, "e.mp4"}
        assert store.entry("e.mp4") == new.record
    assert verify_file(path, identity).is_sound


def test_an_index_of_format_1_learns_the_kinds_of_problems(tmp_path: Path, identity: Identity) -> None:
    reasons: dict[str, Problem] = {
        "cannot be opened: Permission denied": "not_opened",
        "took longer than 120 s to decode": "too_slow",
        "crashed the decoder (SIGSEGV)": "crashed",
        "makes the model give numbers that are not finite": "not_finite",
        "is empty": "damaged",
    }
    failed: list[Video] = [video(reason, 0, status="failed", reason=reason) for reason in reasons]
    write_old_index(tmp_path / "old.sqlite", identity, 1, *failed, video("a.mp4"))
    for read_only in (True, False, True):
        with closing(SqliteStore(tmp_path / "old.sqlite", identity, read_only=read_only)) as store:
            ledger = store.ledger()
            assert {name: entry.problem for name, entry in ledger.items() if entry.status == "failed"} == reasons
            assert ledger["a.mp4"] == video("a.mp4").record


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM tokens WHERE clip_id = 2",
        "DELETE FROM videos WHERE video_id = 1",
        "UPDATE tokens SET record = x'00' WHERE clip_id = 2",
        "UPDATE tokens SET record = record || record WHERE clip_id = 2",
        "UPDATE pooled SET vector = 17 WHERE clip_id = 2",
        "PRAGMA user_version = 0",
    ],
)
def test_a_damaged_older_index_is_told(tmp_path: Path, identity: Identity, damage: str, read_only: bool) -> None:
    path = tmp_path / "old.sqlite"
    write_old_index(path, identity, 2, *VIDEOS)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(damage)
    with (
        pytest.raises(IndexStoreError, match=r"is damaged .*--verify"),
        closing(SqliteStore(path, identity, read_only=read_only)) as store,
    ):
        content(store)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE videos SET size_bytes = 11 WHERE video_id = 2",
        "UPDATE videos SET num_clips = 'x' WHERE video_id = 2",
        "DELETE FROM videos WHERE video_id = 2",
        "UPDATE meta SET value = 'x' WHERE key = 'contents'",
    ],
)
def test_damage_in_an_index_of_format_3_outlives_the_upgrade_and_is_mended(
    tmp_path: Path, identity: Identity, damage: str
) -> None:
    path = tmp_path / "old.sqlite"
    write_old_index(path, identity, 3, *VIDEOS)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(damage)
    for read_only in (True, False):
        with (
            pytest.raises(IndexStoreError, match=r"is damaged .*--verify"),
            closing(SqliteStore(path, identity, read_only=read_only)) as store,
        ):
            content(store)
    found = verify_file(path, identity)
    assert not found.is_sound
    assert found.videos == (0 if "meta" in damage else 3), "no more is lost than must be"
    assert verify_file(path, identity).is_sound


def test_an_older_index_of_another_model_stays_as_it_is(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "old.sqlite"
    write_old_index(path, Identity("b" * 64, identity.layout, identity.folder), 2, *VIDEOS)
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(IndexStoreError, match="another model"):
            SqliteStore(path, identity, read_only=read_only)
    assert path.read_bytes() == before
