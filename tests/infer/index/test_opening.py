"""Indexes that are only read, also where nothing may be written; empty ones, made anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.opening import EmptyIndexWarning
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.command_line import WITHOUT_ROOTS_RIGHTS, run_python
from tests.builders.stored_videos import content, paths, put, video, write_old_index

WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.stored_videos import LAYOUT, put, video
store = SqliteStore(Path(sys.argv[1]), Identity("a" * 64, LAYOUT, Path(sys.argv[2])))
put(store, video("c.mp4", seed=2))
os._exit(0)
"""

READ = """
import sys
from pathlib import Path
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.stored_videos import LAYOUT, content
try:
    store = SqliteStore(Path(sys.argv[1]), Identity("a" * 64, LAYOUT, Path(sys.argv[2])), read_only=True)
    print(*sorted(content(store)))
    store.close()
except IndexStoreError as error:
    print(error)
"""


def write_and_die(file: Path, identity: Identity) -> None:
    """Leaves a video in the WAL, as a process that is killed does."""
    done = run_python(WRITE_AND_DIE, file, identity.folder)
    assert done.returncode == 0, done.stderr
    assert file.with_name(file.name + "-wal").stat().st_size


@pytest.fixture(params=["none", "both", "only the wal", "empty wal", "old format"])
def left(request: pytest.FixtureRequest, file: Path, identity: Identity) -> Iterator[tuple[Path, str]]:
    """An index with what a process left beside it, and the videos that it holds."""
    expected = "a.mp4 b.mp4"
    if request.param in ("both", "only the wal"):
        write_and_die(file, identity)
        expected += " c.mp4"
    if request.param == "only the wal":
        file.with_name(file.name + "-shm").unlink()
    if request.param == "empty wal":
        file.with_name(file.name + "-wal").touch()
    if request.param == "old format":
        file.unlink()
        write_old_index(file, identity, 2, video("a.mp4"), video("b.mp4", seed=1))
    file.with_name(file.name + ".lock").unlink()
    yield file, expected
    file.parent.chmod(0o755)


def test_an_index_that_may_not_be_written_is_read(left: tuple[Path, str], identity: Identity) -> None:
    file, expected = left
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    for path in before:
        path.chmod(0o444)
    file.parent.chmod(0o555)
    done = run_python(READ, file, identity.folder, prefix=WITHOUT_ROOTS_RIGHTS)
    assert done.stdout == expected + "\n", done.stderr
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before, "nothing was written"


MOUNTED_READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 77
touch "$1/x" 2> /dev/null && exit 77
exec "$2" -c "$3" "$4" "$5"
"""


def test_an_index_on_a_disk_that_is_mounted_read_only_is_read(left: tuple[Path, str], identity: Identity) -> None:
    file, expected = left
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED_READ_ONLY, "sh", file.parent]
    done = subprocess.run(
        [*map(str, command), sys.executable, READ, file, identity.folder], capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no disk can be mounted here")
    assert done.stdout == expected + "\n", done.stderr


def test_changes_that_may_not_be_read_are_told(file: Path, identity: Identity) -> None:
    """Without its WAL the file may be in a state between two checkpoints: nothing is read past it."""
    write_and_die(file, identity)
    file.with_name(file.name + "-wal").chmod(0)
    file.with_name(file.name + "-shm").unlink()
    file.parent.chmod(0o555)
    done = run_python(READ, file, identity.folder, prefix=WITHOUT_ROOTS_RIGHTS)
    file.parent.chmod(0o755)
    assert "has changes in index.sqlite-wal, which cannot be read" in done.stdout, done.stderr


def test_an_index_that_may_not_be_read_is_told(file: Path, identity: Identity) -> None:
    file.chmod(0)
    done = run_python(READ, file, identity.folder, prefix=WITHOUT_ROOTS_RIGHTS)
    assert f"the index {file} cannot be read (unable to open database file): mend its permissions" in done.stdout


def test_reading_makes_no_file_and_changes_none(tmp_path: Path, file: Path, identity: Identity) -> None:
    with pytest.raises(IndexStoreError, match=r"there is no index .*none/i\.sqlite: make it with hbi-infer index"):
        SqliteStore(tmp_path / "none" / "i.sqlite", identity, read_only=True)
    assert not (tmp_path / "none").exists()
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    with closing(SqliteStore(file, identity, read_only=True)) as store:
        assert set(content(store)) == {"a.mp4", "b.mp4"}
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before
    identity.folder.rename(tmp_path / "moved")
    (tmp_path / "moved" / "b.mp4").write_bytes(b"0123456789")
    with pytest.raises(IndexStoreError, match="is of the folder"):
        SqliteStore(file, replace(identity, folder=tmp_path / "moved"), read_only=True)
    with pytest.raises(IndexStoreError, match="another model"):
        SqliteStore(file, replace(identity, bundle_sha256="b" * 64), read_only=True)


def test_what_another_user_writes_into_an_index_read_without_locks_is_told(identity: Identity) -> None:
    code = READ.replace("    store.close()", "    sys.stdin.readline(); print(*store.ledger())")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        file = folder / "index.sqlite"
        with closing(SqliteStore(file, identity)) as store:
            put(store, video("a.mp4"))
        folder.chmod(0o555)
        command = [*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", code, str(file), str(identity.folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "a.mp4\n"
            folder.chmod(0o755)
            with closing(SqliteStore(file, identity)) as store:
                put(store, video("b.mp4"))
            output, _ = process.communicate("go\n", timeout=30)
        assert output == f"another process has written the index {file} meanwhile: open it again\n"


@pytest.mark.parametrize("leftover", [False, True])
def test_an_index_of_0_bytes_is_a_damaged_one(file: Path, identity: Identity, leftover: bool) -> None:
    if leftover:  # a WAL of the file that was there, which must not get into the new one
        write_and_die(file, identity)
    file.write_bytes(b"")
    with pytest.raises(IndexStoreError, match=r"is damaged \(it has 0 bytes\): .*--rebuild.*--verify"):
        SqliteStore(file, identity, read_only=True)
    assert file.read_bytes() == b""
    with pytest.warns(EmptyIndexWarning, match=r"index\.sqlite is damaged \(it has 0 bytes\): all is indexed anew"):
        store = SqliteStore(file, identity)
    with closing(store):
        assert store.ledger() == {}
        put(store, video("d.mp4"))
    with closing(SqliteStore(file, identity)) as store:
        assert paths(store) == {"d.mp4"}


def test_an_index_of_0_bytes_is_made_anew_without_a_word_when_asked_to(file: Path, identity: Identity) -> None:
    file.write_bytes(b"")
    with closing(SqliteStore(file, identity, rebuild=True)) as store:
        put(store, video("d.mp4"))
    with closing(SqliteStore(file, identity, read_only=True)) as store:
        assert paths(store) == {"d.mp4"}


def test_an_index_behind_a_link_is_read(file: Path, identity: Identity, tmp_path: Path) -> None:
    write_and_die(file, identity)
    link = tmp_path / "link" / "other name.sqlite"
    link.parent.mkdir()
    link.symlink_to(file)
    file.with_name(file.name + "-shm").unlink()
    file.parent.chmod(0o555)
    done = run_python(READ, link, identity.folder, prefix=WITHOUT_ROOTS_RIGHTS)
    file.parent.chmod(0o755)
    assert done.stdout == "a.mp4 b.mp4 c.mp4\n", done.stderr


def test_an_odd_name_of_an_index_is_read(tmp_path: Path, identity: Identity) -> None:
    folder = tmp_path / "100% ü?#&"
    with closing(SqliteStore(folder / "a?b#c%20.sqlite", identity)) as store:
        put(store, video("a.mp4"))
    folder.chmod(0o555)
    done = run_python(READ, folder / "a?b#c%20.sqlite", identity.folder, prefix=WITHOUT_ROOTS_RIGHTS)
    folder.chmod(0o755)
    assert done.stdout == "a.mp4\n", done.stderr
    shutil.rmtree(folder)
