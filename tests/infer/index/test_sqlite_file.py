"""The file of a store: opened, refused, damaged, made anew, read-only."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.options import EVERYTHING
from hbi_infer.tokens.layout import TokenLayout
from tests.builders.command_line import run_python
from tests.builders.stored_videos import paths, put, video


def test_an_index_of_another_model_is_refused_and_can_be_made_anew(file: Path, identity: Identity) -> None:
    other = replace(identity, bundle_sha256="b" * 64)
    with pytest.raises(IndexStoreError, match=r"another model \(bundle aaaaaaaaaaaa, this one is bbbbbbbbbbbb.*--reb"):
        SqliteStore(file, other)
    with pytest.raises(IndexStoreError, match="another model"):
        SqliteStore(file, replace(identity, layout=TokenLayout((("entity", 3),), 8)))
    with closing(SqliteStore(file, other, rebuild=True)) as store, store.sole_writer():
        put(store, video("c.mp4"))
        assert set(store.ledger()) == paths(store) == {"c.mp4"}
    with pytest.raises(IndexStoreError, match="another model"):
        SqliteStore(file, identity)


def test_a_process_notices_that_another_one_made_the_index_anew(file: Path, identity: Identity) -> None:
    with closing(SqliteStore(file, identity)) as store:
        ids = store.clip_ids(EVERYTHING)
        assert not store.was_made_anew()
        with closing(SqliteStore(file, identity, rebuild=True)) as other:
            put(other, video("c.mp4"))
            assert paths(other) == {"c.mp4"}
            assert not other.was_made_anew()
        assert store.was_made_anew()
        assert len(store.fetch_tokens(ids)[0]) == 0, "no id is used again"
        assert paths(store) == {"c.mp4"}
        with closing(SqliteStore(file, replace(identity, bundle_sha256="b" * 64), rebuild=True)) as other:
            put(other, video("c.mp4"))
            with pytest.raises(IndexStoreError, match="another model"):
                store.candidates(np.ones(8, np.float32), EVERYTHING, 5)
            with pytest.raises(IndexStoreError, match="another model"), store.sole_writer():
                pass


def test_an_index_of_another_folder_is_refused_unless_the_folder_was_moved(
    file: Path, identity: Identity, tmp_path: Path
) -> None:
    video_file = identity.folder / "b.mp4"
    video_file.write_bytes(b"0123456789")
    os.utime(video_file, ns=(20, 20))
    moved = replace(identity, folder=tmp_path / "moved")
    with pytest.raises(IndexStoreError, match=r"is of the folder .*videos, not of .*moved.*another --index"):
        SqliteStore(file, moved)
    identity.folder.rename(moved.folder)
    with closing(SqliteStore(file, moved)) as store:
        assert paths(store) == {"a.mp4", "b.mp4"}
    identity.folder.mkdir()
    with pytest.raises(IndexStoreError, match=r"is of the folder .*moved"):
        SqliteStore(file, identity)


def test_an_index_of_a_folder_that_is_not_there_is_not_taken_for_another_one(
    file: Path, identity: Identity, tmp_path: Path
) -> None:
    identity.folder.rename(tmp_path / "unmounted")
    other = replace(identity, folder=tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "a.mp4").write_bytes(b"another one")
    with pytest.raises(IndexStoreError, match=r"is of the folder .*videos, not of .*other.*another --index"):
        SqliteStore(file, other)
    (tmp_path / "unmounted").rename(identity.folder)
    with closing(SqliteStore(file, identity)) as store:
        assert paths(store) == {"a.mp4", "b.mp4"}


def test_an_index_of_a_newer_format_is_refused(file: Path, identity: Identity) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    with pytest.raises(IndexStoreError, match="format 5 and this hbi-infer reads up to 4: pip install --upgrade"):
        SqliteStore(file, identity)
    with closing(SqliteStore(file, identity, rebuild=True)) as store:
        put(store, video("c.mp4"))
    with closing(SqliteStore(file, identity)) as store:
        assert paths(store) == {"c.mp4"}


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_database_of_another_program_is_left_alone(tmp_path: Path, identity: Identity, rebuild: bool) -> None:
    file = tmp_path / "bookmarks.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    content = file.read_bytes()
    with pytest.raises(IndexStoreError, match="not an index"):
        SqliteStore(file, identity, rebuild=rebuild)
    assert file.read_bytes() == content


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, identity: Identity, rebuild: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes " * 1000)
    with pytest.raises(IndexStoreError, match="not an index" if rebuild else "damaged"):
        SqliteStore(file, identity, rebuild=rebuild)
    assert file.read_text() == "notes " * 1000


@pytest.mark.parametrize("kept_bytes", [150, 3000, 20000])
def test_a_truncated_index_is_told_and_can_be_made_anew(file: Path, identity: Identity, kept_bytes: int) -> None:
    os.truncate(file, kept_bytes)
    with pytest.raises(IndexStoreError, match=r"index\.sqlite is damaged .*--rebuild; the videos are not touched"):
        read_all(file, identity)
    with closing(SqliteStore(file, identity, rebuild=True)) as store:
        put(store, video("a.mp4"))
        assert store.num_clips() == 2
    read_all(file, identity)


def test_an_overwritten_index_is_told_and_can_be_made_anew(file: Path, identity: Identity) -> None:
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xa5" * (file.stat().st_size - 4096))
    with pytest.raises(IndexStoreError, match=r"is damaged .*--rebuild"):
        read_all(file, identity)
    with closing(SqliteStore(file, identity, rebuild=True)) as store:
        assert store.num_clips() == 0
    read_all(file, identity)


def test_what_an_index_holds_goes_only_when_something_takes_its_place(file: Path, identity: Identity) -> None:
    before = {"a.mp4", "b.mp4"}
    with closing(SqliteStore(file, identity, rebuild=True)) as store, store.sole_writer():
        assert paths(store) == before
        new = video("c.mp4")
        with pytest.raises(ValueError, match="shorter"):
            store.put(new.record, new.clips, new.tokens[:1], new.vectors)
        assert paths(store) == before
    with closing(SqliteStore(file, identity)) as store:
        assert paths(store) == before
    with closing(SqliteStore(file, identity, rebuild=True)) as store:
        put(store, new, video("d.mp4"))
        assert paths(store) == {"c.mp4", "d.mp4"}
        put(store, video("e.mp4"))
        store.remove(["c.mp4"])
        assert store._connection.execute("SELECT count(*) FROM tokens").fetchone() == (4,), "rows still go together"


def test_an_index_that_another_process_made_anew_meanwhile_is_not_made_anew_again(
    file: Path, identity: Identity
) -> None:
    with (
        closing(SqliteStore(file, identity, rebuild=True)) as first,
        closing(SqliteStore(file, identity, rebuild=True)) as second,
    ):
        with first.sole_writer():
            put(first, video("c.mp4"))
        with second.sole_writer():
            assert not second.begins_anew
            put(second, video("d.mp4"))
        assert not second.was_made_anew()
        assert paths(first) == paths(second) == {"c.mp4", "d.mp4"}
        assert not first.was_made_anew()


def overwrite(file: Path, start: int, garbage: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(garbage)


def test_a_schema_that_is_no_text_is_told_and_can_be_made_anew(file: Path, identity: Identity) -> None:
    overwrite(file, file.read_bytes().index(b"CREATE TABLE clips") + 3, b"\x8e")  # SQLite's message quotes it
    with pytest.raises(IndexStoreError, match=r"is damaged .*--rebuild"):
        SqliteStore(file, identity)
    make_anew(file, identity)


def test_damage_that_only_writing_meets_can_be_made_anew(file: Path, identity: Identity) -> None:
    overwrite(file, 107, b"\x76")  # how many bytes of the first page are lost in fragments
    make_anew(file, identity)


def test_an_index_on_no_table_can_be_made_anew(file: Path, identity: Identity) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET tbl_name = 'videot' WHERE name = 'sqlite_autoindex_videos_1'")
    make_anew(file, identity)


def make_anew(file: Path, identity: Identity) -> None:
    with closing(SqliteStore(file, identity, rebuild=True)) as store, store.sole_writer():
        put(store, video("c.mp4"))
    read_all(file, identity)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "occupied").write_text("a file, not a folder")
    with pytest.raises(IndexStoreError, match=r"cannot make the folder .*occupied.* choose another place"):
        SqliteStore(tmp_path / "occupied" / "index.sqlite", identity)
    with pytest.raises(IndexStoreError, match=r"cannot be opened for writing .*another place with --index"):
        SqliteStore(tmp_path, identity)  # a folder, not a file


READ_ONLY = """
import os, sys
from pathlib import Path
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.stored_videos import LAYOUT
if os.getuid() == 0:
    os.setuid(65534)
try:
    SqliteStore(Path(sys.argv[1]), Identity(bundle_sha256="a" * 64, layout=LAYOUT, folder=Path(sys.argv[2])))
except IndexStoreError as error:
    print(error)
"""


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_folder_is_told(identity: Identity, existing: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # pytest's own are closed to other users
        folder, path = Path(temporary), Path(temporary) / "index.sqlite"
        identity = replace(identity, folder=folder)
        if existing:
            SqliteStore(path, identity).close()
            path.chmod(0o444)
        folder.chmod(0o555)
        done = run_python(READ_ONLY, path, folder)
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "another place with --index" in done.stdout


def read_all(file: Path, identity: Identity) -> None:
    with closing(SqliteStore(file, identity)) as store:
        store.ledger()
        ids = store.clip_ids(EVERYTHING)
        store.fetch_tokens(ids)
        store.clips(ids.tolist())
