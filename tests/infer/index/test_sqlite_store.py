from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from threading import Event

import numpy as np
import pytest

from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import ContentMark, FileVersion, LedgerEntry, Move, TokenStore
from hbi_infer.index.verify import verify_file
from hbi_infer.options import EVERYTHING, Filter, Finding
from hbi_infer.tokens.levels import unit
from tests.builders.command_line import run_python
from tests.builders.stored_videos import LAYOUT, content, paths, put, video


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


def test_the_use_of_a_closed_store_is_told(store: SqliteStore) -> None:
    put(store, video("a.mp4"))
    ids = store.clip_ids(EVERYTHING)
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        store.ledger,
        store.version,
        store.num_clips,
        store.was_made_anew,
        lambda: store.entry("a.mp4"),
        lambda: store.clip_ids(EVERYTHING),
        lambda: store.candidates(np.ones(LAYOUT.width, np.float32), EVERYTHING, 5),
        lambda: store.fetch_tokens(ids),
        lambda: store.clips(ids.tolist()),
        lambda: put(store, video("b.mp4")),
        lambda: store.remove(["a.mp4"]),
    ]
    for use in uses:
        with pytest.raises(IndexStoreError, match=r"the index .*index\.sqlite is closed: open it again"):
            use()


def test_threads_read_one_store_while_another_one_writes(store: SqliteStore) -> None:
    """Every reader sees whole videos: those put before it reads, and perhaps more."""
    put(store, *(video(f"{number}.mp4", 3, seed=number) for number in range(5)))
    done = Event()

    def write() -> None:
        for number in range(5, 40):
            put(store, video(f"{number}.mp4", 3, seed=number))
            store.remove([f"{number - 5}.mp4"])
        done.set()

    def read() -> int:
        times = 0
        while not done.is_set() or not times:
            assert 5 <= len(store.ledger()) <= 6
            ids = store.clip_ids(EVERYTHING)
            assert len(ids) in (15, 18)
            assert len(store.fetch_tokens(ids)[0]) % 3 == 0
            assert len(store.candidates(np.ones(LAYOUT.width, np.float32), EVERYTHING, 100)[0]) in (15, 18)
            assert len(store.clips(ids.tolist())) % 3 == store.num_clips() % 3 == 0
            times += 1
        return times

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        pool.submit(write).result(60)
        assert all(reader.result(60) for reader in readers)
    assert set(store.ledger()) == {f"{number}.mp4" for number in range(35, 40)}


def test_a_store_that_another_thread_closes_is_told(store: SqliteStore) -> None:
    put(store, video("a.mp4", 50))

    def read() -> None:
        while True:
            content(store)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        time.sleep(0.1)
        store.close()
        for reader in readers:
            with pytest.raises(IndexStoreError, match="is closed"):
                reader.result(60)


@pytest.mark.parametrize("time_ns", [10_413_792_000 * 10**9, -(10**20), 2**63, -(2**63) - 1])
def test_a_file_of_any_time_is_stored(store: SqliteStore, time_ns: int) -> None:
    put(store, video("a.mp4", version=FileVersion(5, time_ns)), video("b.mp4", seed=1))
    assert store.ledger()["a.mp4"].version == FileVersion(5, time_ns)
    put(store, video("a.mp4", version=FileVersion(5, time_ns + 1)))
    assert store.ledger()["a.mp4"].version == FileVersion(5, time_ns + 1)
    late = "a.mp4" if time_ns > 0 else "b.mp4"
    [before, after] = (
        paths(store, Filter(**{name: datetime(1968 if time_ns < 0 else 2200, 1, 1)}))  # type: ignore[arg-type]
        for name in ("older_than", "newer_than")
    )
    assert (before, after) == ({"a.mp4", "b.mp4"} - {late}, {late})


def test_a_reason_that_is_no_text_is_stored(store: SqliteStore) -> None:
    entry = LedgerEntry(path="a.mp4", version=FileVersion(1, 1), status="failed", reason=f"in {chr(0xDCE9)}")
    store.put(entry, [], video("x").tokens[:0], video("x").vectors[:0])
    assert store.ledger()["a.mp4"].reason == "in \\udce9"


NUM_FLIPS = 200


def test_a_changed_bit_anywhere_is_told_or_changes_nothing(tmp_path: Path, identity: Identity) -> None:
    """Bits of the whole file, a third of them where SQLite keeps its lists."""
    path = tmp_path / "index.sqlite"
    with closing(SqliteStore(path, identity)) as store:
        put(store, *(video(f"dir{n % 3}/{n}.mp4", 1 + n % 4, seed=n, duration_seconds=n / 3) for n in range(12)))
        put(store, video("late.mp4", 2, version=FileVersion(1, 2**70)), video("dir1/1.mp4", 3, seed=99))
        store.remove(["dir0/3.mp4", "dir2/8.mp4"])
        expected = content(store)
    whole, random = path.read_bytes(), Random(0)
    same = 0
    for number in range(NUM_FLIPS):
        position = random.randrange(len(whole))
        if number % 3 == 0:  # the head of a page
            position = position // 4096 * 4096 + random.randrange(64)
        changed = bytearray(whole)
        changed[position] ^= 1 << random.randrange(8)
        for file in tmp_path.glob("index.sqlite*"):
            file.unlink()
        path.write_bytes(changed)
        try:
            with (
                closing(SqliteStore(path, identity, read_only=number % 2 == 0)) as store,
                nullcontext() if number % 2 == 0 else store.sole_writer(),
            ):
                assert content(store) == expected, f"bit at {position}"
            same += 1
        except IndexStoreError:
            pass
    assert NUM_FLIPS - same > NUM_FLIPS // 8


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
        (Filter(path_glob="*.mp4", folder="CATS"), ""),
        (Filter(path_glob="[!a].mp4"), ""),
        (Filter(path_glob="*[^ac].mp4"), "d"),
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


def test_filters_take_one_form_of_a_name_and_either_case(store: SqliteStore) -> None:
    parted = unicodedata.normalize("NFD", "Café/É.MP4")
    put(store, video(parted), video("other/b.mkv", seed=1))
    for where in (
        Filter(path_glob="*.mp4"),
        Filter(path_glob=unicodedata.normalize("NFC", "café/é*")),
        Filter(path_glob=unicodedata.normalize("NFC", "Café/*")),
        Filter(folder=unicodedata.normalize("NFC", "café")),
        Filter(folder=parted.partition("/")[0]),
    ):
        assert paths(store, where) == {parted}
    assert paths(store, Filter(path_glob="*.Mp4")) == paths(store, Filter(folder="CAFÉ")) == set()


def test_which_files_are_videos_is_kept(store: SqliteStore, tmp_path: Path, identity: Identity) -> None:
    asked = Finding(exclude=("*.gif", os.fsdecode(b"\xff")), all_files=True)
    assert store.finding() == Finding()
    store.remember(asked)
    file = tmp_path / "cache" / "index.sqlite"
    with closing(SqliteStore(file, identity)) as other:
        assert other.finding() == asked
    with closing(SqliteStore(file, identity, rebuild=True)) as anew:
        assert anew.finding() == Finding(), "it belongs to the index that is thrown away"
        anew.remember(Finding(exclude=("b",)))
        assert store.finding() == asked, "which is there until the first video"
        put(anew, video("a.mp4"))
        assert anew.finding() == store.finding() == Finding(exclude=("b",))


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


def read_all(file: Path, identity: Identity) -> None:
    with closing(SqliteStore(file, identity)) as store:
        store.ledger()
        store.finding()
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
        "INSERT INTO meta VALUES ('finding', '3')",
        "INSERT INTO meta VALUES ('finding', '{\"exclude\": [1], \"all_files\": true}')",
        "INSERT INTO meta VALUES ('finding', '{')",
        "DELETE FROM meta WHERE key = 'folder'",
        "DELETE FROM meta WHERE key = 'layout'",
    ],
)
def test_values_that_make_no_sense_are_told(file: Path, identity: Identity, damage: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(damage)
    with pytest.raises(IndexStoreError, match=r"is damaged .*--rebuild"):
        read_all(file, identity)


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


MARK = ContentMark(b"0123456789abcdef", 77)


def moved(source: LedgerEntry, path: str, *, is_copy: bool = False) -> Move:
    return Move(source.path, replace(source, path=path, mark=MARK), is_copy)


def test_names_are_swapped_copied_and_taken_at_once(store: SqliteStore, tmp_path: Path, identity: Identity) -> None:
    a, b, c = video("a.mp4", 3), video("b.mp4", 1, seed=1, status="partial", reason="cut"), video("c.mp4", seed=2)
    put(store, a, b, c)
    before = content(store)
    ids = {name: store.clip_ids_of(name).tolist() for name in before}
    store.take_over(
        [
            moved(a.record, "b.mp4"),
            moved(b.record, "c.mp4"),
            moved(a.record, "x/copy.mp4", is_copy=True),
            moved(b.record, "a.mp4", is_copy=True),
        ]
    )
    for again in (store, SqliteStore(tmp_path / "cache" / "index.sqlite", identity)):
        after = content(again)
        sources = {"b.mp4": "a.mp4", "c.mp4": "b.mp4", "x/copy.mp4": "a.mp4", "a.mp4": "b.mp4"}
        assert {name: entry for name, (entry, _) in after.items()} == {
            name: replace(before[source][0], path=name, mark=MARK) for name, source in sources.items()
        }
        assert {name: clips for name, (_, clips) in after.items()} == {
            name: before[source][1] for name, source in sources.items()
        }
        assert again.clip_ids_of("b.mp4").tolist() == ids["a.mp4"], "a moved video keeps its clips"
        assert again.num_clips() == 8
    again.close()
    put(store, video("new.mp4", 2, seed=5))
    assert verify_file(store.path, identity).is_sound


def test_a_move_from_what_is_not_there_changes_nothing(store: SqliteStore) -> None:
    a = video("a.mp4")
    put(store, a)
    before = content(store)
    with pytest.raises(IndexStoreError, match="damaged"):
        store.take_over([moved(a.record, "b.mp4"), moved(video("none.mp4").record, "c.mp4")])
    assert content(store) == before


def test_a_damaged_video_is_not_copied(store: SqliteStore, tmp_path: Path) -> None:
    a = video("a.mp4")
    put(store, a)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE tokens SET record = zeroblob(length(record)) WHERE clip_id = 1")
    with pytest.raises(IndexStoreError, match="damaged"):
        store.take_over([moved(a.record, "b.mp4", is_copy=True)])
    assert set(store.ledger()) == {"a.mp4"}


def test_marks_are_kept_only_of_videos_that_are_stored_as_was_thought(store: SqliteStore, identity: Identity) -> None:
    a, b = video("a.mp4"), video("b.mp4", seed=1)
    put(store, a, b)
    store.put_marks(
        [
            replace(a.record, mark=MARK),
            replace(b.record, version=FileVersion(11, 20), mark=MARK),
            replace(a.record, path="none.mp4", mark=MARK),
        ]
    )
    assert {name: entry.mark for name, entry in store.ledger().items()} == {"a.mp4": MARK, "b.mp4": None}
    late = replace(a.record, mark=ContentMark(b"1" * 16, -(2**70)))
    store.put_marks([late])
    assert store.entry("a.mp4") == late
    assert verify_file(store.path, identity).is_sound


FILL = """
import sys
from pathlib import Path
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.sqlite_file import FORMAT_VERSION, Identity
from hbi_infer.index.sqlite_store import SqliteStore
from tests.builders.stored_videos import LAYOUT, put, video
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
