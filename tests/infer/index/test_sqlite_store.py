from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import FileVersion, LedgerEntry, TokenStore
from hbi_infer.options import EVERYTHING, Filter
from hbi_infer.tokens.layout import PackedTokens, TokenLayout
from hbi_infer.tokens.levels import LevelTokens, pooled, unit
from hbi_infer.video.decoded_video import Clip, Problem

LAYOUT = TokenLayout((("entity", 3), ("event", 1)), 8, merged=("event",))


@dataclass(frozen=True)
class Video:
    """What `put` takes."""

    record: LedgerEntry
    clips: list[Clip]
    tokens: PackedTokens
    vectors: npt.NDArray[np.float32]


def video(path: str, num_clips: int = 2, *, seed: int = 0, **record: object) -> Video:
    rng = np.random.default_rng(seed)
    levels = {
        name: LevelTokens(
            rng.standard_normal((num_clips, size, LAYOUT.width)).astype(np.float32),
            np.full((num_clips, size), 1 / size, np.float32),
            np.tile([0, 0, -1], (num_clips, 1)) if name in LAYOUT.merged else None,
        )
        for name, size in LAYOUT.levels
    }
    times = np.array([0.0, 1.0, np.nan])
    clips = [
        Clip(
            start_seconds=2.0 * i,
            end_seconds=2.0 * i + 2,
            frames=np.zeros((3, 1, 1, 3), np.uint8),
            timestamps_seconds=times + 2 * i,
            mask=np.array([True, True, False]),
        )
        for i in range(num_clips)
    ]
    line = replace(LedgerEntry(path=path, version=FileVersion(10, 20)), **record)  # type: ignore[arg-type]
    return Video(line, clips, LAYOUT.pack(levels), pooled(levels, dict.fromkeys(levels, 1.0)))


def put(store: SqliteStore, *videos: Video) -> None:
    for item in videos:
        store.put(item.record, item.clips, item.tokens, item.vectors)


def paths(store: SqliteStore, where: Filter = EVERYTHING) -> set[str]:
    return {clip.path for clip in store.clips(store.clip_ids(where).tolist())}


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


def test_what_was_put_comes_back(store: SqliteStore, tmp_path: Path, identity: Identity) -> None:
    first, second = video("a.mp4", duration_seconds=4.0), video("sub/b.mp4", 1, seed=1, status="partial", reason="cut")
    failed = LedgerEntry(
        path="c.mp4", version=FileVersion(0, 0), status="failed", reason="no frames", problem="damaged"
    )
    put(store, first, second)
    store.put(failed, [], first.tokens[:0], first.vectors[:0])
    store.close()
    with closing(SqliteStore(tmp_path / "cache" / "index.sqlite", identity)) as again:
        assert again.ledger() == {v.path: v for v in (first.record, second.record, failed)}
        assert again.num_clips() == 3
        ids, tokens = again.fetch_tokens(again.clip_ids(EVERYTHING))
        assert (tokens == np.concatenate([first.tokens, second.tokens])).all()
        clips = again.clips(ids[::-1].tolist())
        assert [(clip.path, clip.start_seconds, clip.video_seconds) for clip in clips] == [
            ("sub/b.mp4", 0.0, None),
            ("a.mp4", 2.0, 4.0),
            ("a.mp4", 0.0, 4.0),
        ]
        np.testing.assert_array_equal(clips[1].frame_seconds, [2, 3, np.nan])
        assert again.clip_ids_of("a.mp4").tolist() == ids[:2].tolist()
        assert again.clip_ids_of("none.mp4").tolist() == []


def test_the_store_is_what_searching_needs(store: SqliteStore) -> None:
    searched: TokenStore = store
    assert searched.num_clips() == 0
    ids, cosines = searched.candidates(np.ones(LAYOUT.width, np.float32), EVERYTHING, 5)
    assert len(ids) == len(cosines) == len(searched.fetch_tokens(ids)[0]) == 0


def test_the_use_of_a_closed_store_is_a_bug_and_not_a_damaged_index(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.ledger()


def test_putting_a_video_again_replaces_it_and_removing_leaves_nothing(store: SqliteStore) -> None:
    put(store, video("a.mp4"), video("b.mp4"))
    old = store.clip_ids_of("a.mp4")
    put(store, video("a.mp4", 3, seed=5))
    assert store.num_clips() == 5
    assert not set(old.tolist()) & set(store.clip_ids(EVERYTHING).tolist())
    assert len(store.fetch_tokens(old)[0]) == len(store.clips(old.tolist())) == 0
    store.remove(["a.mp4", "b.mp4"])
    assert store.ledger() == {}
    for table in ("clips", "pooled", "tokens"):
        assert store._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_the_version_tells_of_every_change(store: SqliteStore, tmp_path: Path, identity: Identity) -> None:
    versions = [store.version()]
    assert store.version() == versions[0]
    put(store, video("a.mp4"))
    versions.append(store.version())
    with closing(SqliteStore(tmp_path / "cache" / "index.sqlite", identity)) as other:
        put(other, video("b.mp4"))
        versions.append(store.version())
        assert paths(store) == {"a.mp4", "b.mp4"}
    assert len(set(versions)) == 3


def test_candidates_are_the_nearest_pooled_vectors(store: SqliteStore) -> None:
    videos = [video(f"{i}.mp4", 7, seed=i) for i in range(5)]
    put(store, *videos)
    query = unit(np.random.default_rng(9).standard_normal(LAYOUT.width).astype(np.float32))
    expected = np.concatenate([v.vectors for v in videos]) @ query
    order = np.argsort(-expected)
    ids, cosines = store.candidates(query, EVERYTHING, 6)
    assert (ids == store.clip_ids(EVERYTHING)[order[:6]]).all()
    np.testing.assert_allclose(cosines, expected[order[:6]], atol=1e-3)
    ids, _ = store.candidates(query, Filter(path_glob="3.*"), 100)
    assert sorted(ids.tolist()) == store.clip_ids_of("3.mp4").tolist()
    put(store, video("5.mp4", seed=5))
    assert len(store.candidates(query, EVERYTHING, 100)[0]) == 37


def at(*moment: int) -> int:
    return int(datetime(*moment).timestamp() * 1e9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (EVERYTHING, "a b c d"),
        (Filter(path_glob="*.mp4"), "a c d"),
        (Filter(path_glob="cats/*"), "b c"),
        (Filter(path_glob="?.mp4"), "a"),
        (Filter(folder="cats"), "b c"),
        (Filter(folder="cats/"), "b c"),
        (Filter(folder="./cats/old"), "c"),
        (Filter(folder="ca"), ""),
        (Filter(folder="."), "a b c d"),
        (Filter(folder="d[1]"), "d"),
        (Filter(min_seconds=10), "b c"),
        (Filter(max_seconds=10), "a b"),
        (Filter(min_seconds=10, max_seconds=10), "b"),
        (Filter(newer_than=datetime(2024, 6, 1)), "b c"),
        (Filter(older_than=datetime(2024, 6, 1)), "a d"),
        (Filter(newer_than=datetime.min, older_than=datetime.max), "a b c d"),
        (Filter(newer_than=datetime(9999, 12, 31)), ""),
        (Filter(older_than=datetime(1, 1, 1, tzinfo=UTC)), ""),
        (Filter(folder="cats", path_glob="*.mp4", min_seconds=1), "c"),
    ],
)
def test_filters(store: SqliteStore, where: Filter, expected: str) -> None:
    put(
        store,
        video("a.mp4", duration_seconds=5.0, version=FileVersion(10, at(2024, 5, 31))),
        video("cats/b.mkv", duration_seconds=10.0, version=FileVersion(10, at(2024, 6, 1))),
        video("cats/old/c.mp4", duration_seconds=20.0, version=FileVersion(10, at(2025, 1, 1))),
        video("d[1]/d.mp4", duration_seconds=None, version=FileVersion(10, at(2020, 1, 1))),
    )
    assert " ".join(sorted(Path(path).stem for path in paths(store, where))) == expected


def test_names_that_are_not_utf8(store: SqliteStore) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    put(store, video(name), video("ü.mp4", seed=1))
    put(store, video(name, 1, seed=2))
    assert paths(store) == set(store.ledger()) == {name, "ü.mp4"}
    assert len(store.clip_ids_of(name)) == 1
    store.remove([name])
    assert paths(store) == {"ü.mp4"}


def test_filters_by_names_that_are_not_utf8(store: SqliteStore) -> None:
    folder = os.fsdecode(b"\xff\x80")
    put(store, video(f"{folder}/a.mp4"), video(f"{folder}b/b.mp4", seed=1), video("ü/c.mp4", seed=2))
    assert paths(store, Filter(folder=folder)) == {f"{folder}/a.mp4"}
    assert paths(store, Filter(path_glob=os.fsdecode(b"*\xff*.mp4"))) == {f"{folder}/a.mp4", f"{folder}b/b.mp4"}
    assert paths(store, Filter(folder="ü", path_glob="ü*")) == {"ü/c.mp4"}


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


def test_an_index_of_format_1_keeps_its_videos_and_learns_the_kinds_of_problems(file: Path, identity: Identity) -> None:
    reasons: dict[str, Problem] = {
        "cannot be opened: Permission denied": "not_opened",
        "took longer than 120 s to decode": "too_slow",
        "crashed the decoder (SIGSEGV)": "crashed",
        "makes the model give numbers that are not finite": "not_finite",
        "is empty": "damaged",
    }
    with closing(SqliteStore(file, identity)) as store:
        clips = store.clips(store.clip_ids(EVERYTHING).tolist())
        for reason in reasons:
            entry = LedgerEntry(path=reason, version=FileVersion(1, 2), status="failed", reason=reason)
            store.put(entry, [], video("x").tokens[:0], video("x").vectors[:0])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE videos DROP COLUMN problem")
        connection.execute("PRAGMA user_version = 1")
    for _ in range(2):
        with closing(SqliteStore(file, identity)) as store:
            ledger = store.ledger()
            assert {name: entry.problem for name, entry in ledger.items() if entry.status == "failed"} == reasons
            assert ledger["a.mp4"] == video("a.mp4").record
            assert len(store.clips(store.clip_ids(EVERYTHING).tolist())) == len(clips) == 4


def test_an_index_of_a_newer_format_is_refused(file: Path, identity: Identity) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    with pytest.raises(IndexStoreError, match="format 3 and this hbi-infer reads up to 2: pip install --upgrade"):
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


def read_all(file: Path, identity: Identity) -> None:
    with closing(SqliteStore(file, identity)) as store:
        store.ledger()
        ids = store.clip_ids(EVERYTHING)
        store.fetch_tokens(ids)
        store.clips(ids.tolist())


def test_tokens_of_a_wrong_size_are_told(file: Path, identity: Identity) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE tokens SET record = x'00' WHERE clip_id = 2")
    with pytest.raises(IndexStoreError, match="damaged"):
        read_all(file, identity)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE clips SET frame_seconds = x'00'",
        "UPDATE clips SET start_seconds = x'00'",
        "UPDATE tokens SET record = 17",
        "UPDATE videos SET path = x'00' WHERE video_id = 1",
        "UPDATE videos SET reason = x'00'",
        "DELETE FROM meta WHERE key = 'folder'",
        "DELETE FROM meta WHERE key = 'layout'",
    ],
)
def test_values_that_make_no_sense_are_told(file: Path, identity: Identity, damage: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(damage)
    with pytest.raises(IndexStoreError, match=r"is damaged .*--rebuild"):
        read_all(file, identity)


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
from tests.infer.index.test_sqlite_store import LAYOUT
if os.getuid() == 0:
    os.setuid(65534)
try:
    SqliteStore(Path(sys.argv[1]), Identity(bundle_sha256="a" * 64, layout=LAYOUT, folder=Path(sys.argv[2])))
except IndexStoreError as error:
    print(error)
"""


def run_python(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


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


def test_a_full_disk_is_told_and_loses_nothing(store: SqliteStore) -> None:
    put(store, video("a.mp4"))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(IndexStoreError, match=r"no space left for the index .*free some.*What was indexed .* is kept"):
        put(store, *(video(f"{i}.mp4", 50, seed=i) for i in range(10)))
    kept = paths(store)
    assert "a.mp4" in kept
    assert kept == set(store.ledger())
    store._connection.execute("PRAGMA max_page_count = 1000000")
    put(store, video("b.mp4"))
    assert paths(store) == kept | {"b.mp4"}


FILL = """
import sys
from pathlib import Path
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.infer.index.test_sqlite_store import LAYOUT, put, video
store = SqliteStore(Path(sys.argv[1]), Identity(bundle_sha256="a" * 64, layout=LAYOUT, folder=Path(sys.argv[2])))
try:
    for number in range(1000):
        put(store, video(f"{number}.mp4", 20))
        print(number, flush=True)
except IndexStoreError as error:
    sys.exit(str(error))
"""


def test_a_limit_of_the_file_system_is_told_and_loses_nothing(tmp_path: Path, identity: Identity) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    file = tmp_path / "index.sqlite"
    done = run_python(FILL, file, identity.folder, preexec_fn=limit)
    assert done.returncode == 1
    assert "see whether the disk is full or failing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    stored = {f"{number}.mp4" for number in done.stdout.split()}
    assert stored
    with closing(SqliteStore(file, identity)) as store:
        assert paths(store) == set(store.ledger()) == stored


def test_a_process_that_is_killed_while_it_writes_loses_only_the_video_at_hand(
    tmp_path: Path, identity: Identity
) -> None:
    file = tmp_path / "index.sqlite"
    for _ in range(3):
        command = [sys.executable, "-c", FILL, str(file), str(identity.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5):
                last = int(process.stdout.readline())
            process.kill()
        with closing(SqliteStore(file, identity)) as store:
            assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert {f"{number}.mp4" for number in range(last + 1)} <= paths(store) == set(store.ledger())
            assert store.num_clips() == 20 * len(store.ledger())


def test_many_processes_make_one_index_at_once(tmp_path: Path, identity: Identity) -> None:
    code = FILL.replace("range(1000)", "range(15)")
    command = [sys.executable, "-c", code, str(tmp_path / "index.sqlite"), str(identity.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with closing(SqliteStore(tmp_path / "index.sqlite", identity)) as store:
        assert len(store.ledger()) == 15
        assert store.num_clips() == 300
