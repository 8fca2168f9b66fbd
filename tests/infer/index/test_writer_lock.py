"""The lock file of an index: waiting, and whatever else may lie in its place."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.writer_lock import LockFileWarning, sole_writer
from tests.builders.command_line import WITHOUT_ROOTS_RIGHTS, run_python


def test_one_thread_at_a_time_has_the_right(tmp_path: Path) -> None:
    path, waiting = tmp_path / "index.sqlite", Event()

    def second() -> list[Path]:
        with sole_writer(path, waiting.set):
            return [*order, path]

    order: list[Path] = []
    with ThreadPoolExecutor(1) as pool:
        with sole_writer(path):
            other = pool.submit(second)
            assert waiting.wait(10)
            order.append(tmp_path)
        assert other.result(10) == [tmp_path, path]
    assert (tmp_path / "index.sqlite.lock").read_bytes() == b""


@pytest.mark.parametrize(
    "garbage", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(range(256)) * 16, b"\0" * 5000, b"\xa5" * 600]
)
def test_garbage_in_the_lock_file_is_named_kept_and_replaced(tmp_path: Path, garbage: bytes) -> None:
    path, file = tmp_path / "index.sqlite", tmp_path / "index.sqlite.lock"
    file.write_bytes(garbage)
    told = pytest.warns(LockFileWarning, match=r"the lock file .*\.lock held something else, which is kept")
    with told, sole_writer(path), closing(sqlite3.connect(file, timeout=0)) as other:
        other.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT * FROM sqlite_master")
    assert file.read_bytes() == b""
    [kept] = set(tmp_path.iterdir()) - {file}
    assert kept.read_bytes() == garbage
    with sole_writer(path):
        pass


def test_another_programs_database_serves_as_a_lock_and_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "index.sqlite.lock"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    content = file.read_bytes()
    with sole_writer(tmp_path / "index.sqlite"):
        pass
    assert file.read_bytes() == content


def test_a_folder_in_the_lock_files_place(tmp_path: Path) -> None:
    path, file = tmp_path / "index.sqlite", tmp_path / "index.sqlite.lock"
    file.mkdir()
    with pytest.warns(LockFileWarning, match=r"lock was an empty folder: it was replaced"), sole_writer(path):
        assert file.is_file()
    file.unlink()
    (file / "inside").mkdir(parents=True)
    with pytest.raises(IndexStoreError, match=r"the lock file .* is a folder .*: move it"), sole_writer(path):
        pass


def test_a_pipe_in_the_lock_files_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "index.sqlite.lock")
    with (
        pytest.raises(IndexStoreError, match=r"the lock file .* is no regular file: delete it"),
        sole_writer(tmp_path / "index.sqlite"),
    ):
        pass


HOLD = """
import sys
from pathlib import Path
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.writer_lock import sole_writer
try:
    with sole_writer(Path(sys.argv[1])):
        print("held")
except IndexStoreError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_lock_file_that_may_not_be_used_is_named(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "index.sqlite.lock"
    file.write_bytes(b"garbage" * 100)
    file.chmod(mode)
    done = run_python(HOLD, tmp_path / "index.sqlite", prefix=WITHOUT_ROOTS_RIGHTS)
    assert done.stdout.startswith(f"the lock file {file} cannot be used ("), done.stderr
    assert file.stat().st_size == 700
