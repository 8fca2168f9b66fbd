from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.index.folder_index import default_location
from hbi_infer.options import Filter, Searching
from tests.builders.tiny_bundle import write_tiny_bundle
from tests.builders.updates import read_until, start_update


def test_a_folder_is_indexed_and_searched(index: Index, folder: Path) -> None:
    report = index.update(workers=1)
    assert (report.added, report.changed, report.removed, report.unchanged, report.clips) == (3, 0, 0, 0, 3)
    assert report.partial == []
    [fault] = report.failed
    assert (fault.path, fault.problem) == ("damaged.mp4", "damaged")
    assert fault.reason
    assert index.failures() == report.failed
    assert min(report.decode_seconds, report.wait_seconds, report.encode_seconds, report.store_seconds) > 0
    parts = report.wait_seconds + report.encode_seconds + report.store_seconds
    assert 0 < parts <= report.total_seconds == pytest.approx(report.clips / report.clips_per_second)
    best, second, *rest = index.search("a blue video", Searching(all_clips=True))
    assert (best.rank, best.path) == (1, folder / "sub" / "green_blue.mkv")
    assert best.score > second.score
    assert (best.start_seconds, best.end_seconds) == pytest.approx((2, 4), abs=0.15)
    assert best.video_seconds == pytest.approx(4, abs=0.15)
    assert best.best_frame_seconds
    assert all(2 <= seconds <= 4 for seconds in best.best_frame_seconds)
    assert len(rest) == 1
    assert index.search("red")[0].path == folder / "red.mp4"


def test_the_index_is_kept_in_the_users_cache_and_not_among_the_videos(
    folder: Path, model: HBI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = set(folder.rglob("*"))
    monkeypatch.chdir(folder.parent)
    with Index.open("videos", model) as index:
        index.update(workers=1)
        index.search("red")
        assert set(folder.rglob("*")) == before
    location = default_location(folder, model.bundle.sha256)
    assert location.is_file()
    assert location.is_relative_to(tmp_path / "cache")
    assert default_location(folder, "f" * 64) != location != default_location(folder.parent, model.bundle.sha256)
    with Index.open(folder, model) as index:
        assert index.update(workers=1).unchanged == 3


@pytest.mark.parametrize(("name", "reason"), [("gone", "No such file"), ("file", "Not a directory")])
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, model: HBI, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"cannot read the folder .*{name} \({reason}.*: give a folder of videos"):
        Index.open(tmp_path / name, model, location=tmp_path / "index.sqlite")


def test_tokens_that_were_damaged_in_the_file_are_not_searched(index: Index) -> None:
    index.update(workers=1)
    with closing(sqlite3.connect(index.store.path, isolation_level=None)) as connection:
        [(length,)] = connection.execute("SELECT length(record) FROM tokens WHERE clip_id = 2")
        connection.execute("UPDATE tokens SET record = ? WHERE clip_id = 2", (b"\xff" * length,))
    with pytest.raises(IndexStoreError, match=r"is damaged \(tokens that make no sense\).*--rebuild"):
        index.search("red")


def test_an_index_of_another_model_is_refused(folder: Path, model: HBI, tmp_path: Path) -> None:
    location = tmp_path / "index.sqlite"
    with Index.open(folder, model, location=location) as index:
        index.update(workers=1)
    other_bundle = write_tiny_bundle(tmp_path / "other")
    manifest = other_bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"tiny"', '"other"'))
    other = HBI.load(other_bundle, device="cpu")
    with pytest.raises(IndexStoreError, match=r"another model .*--rebuild"):
        Index.open(folder, other, location=location)
    with Index.open(folder, other, location=location, rebuild=True) as index:
        assert index.update(workers=1).added == 3


QUERIES = ["red", "a green video", "blue then red", "a video"] * 3


def test_threads_search_one_index_as_one_does(index: Index, folder: Path) -> None:
    index.update(workers=0)
    ways = [Searching(all_clips=True), Searching(exact_up_to=0), Searching(where=Filter(folder="sub"))]
    todo = [(query, way) for query in QUERIES for way in ways]
    expected = [index.search(*each) for each in todo]
    like = index.like(folder / "red.mp4")
    again = Index.open(folder, index.encoder, location=index.store.path, read_only=True)
    with again, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(again.search, *each) for each in todo]
        likes = [pool.submit(again.like, folder / "red.mp4") for _ in range(4)]
        assert [each.result(60) for each in found] == expected
        assert [each.result(60) for each in likes] == [like] * 4


def test_threads_search_while_another_one_updates(index: Index, folder: Path) -> None:
    index.update(workers=0)
    for number in range(8):
        shutil.copyfile(folder / "red.mp4", folder / f"red{number}.mp4")
    with ThreadPoolExecutor(5) as pool:
        update = pool.submit(index.update, workers=0)
        searches = [pool.submit(index.search, query, top_k=100) for query in QUERIES]
        report = update.result(60)
        assert (report.added, report.clips) == (8, 8)
        assert all(2 <= len(search.result(60)) <= 10 for search in searches)
    assert len(index.search("red", Searching(top_k=100, dedupe="off"))) == 10


def test_threads_that_update_at_once_share_the_work(index: Index) -> None:
    with ThreadPoolExecutor(3) as pool:
        reports = [pool.submit(index.update, workers=0) for _ in range(3)]
        assert sorted(report.result(60).added for report in reports) == [0, 0, 3]


def test_an_index_that_is_closed_is_told_in_every_thread(index: Index, folder: Path) -> None:
    index.update(workers=0)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(index.close).result(10)
        uses: list[Callable[[], object]] = [
            lambda: index.search("red"),
            lambda: index.like(folder / "red.mp4"),
            lambda: index.explain(folder / "red.mp4", "red"),
            lambda: index.update(),
            lambda: index.failures(),
            lambda: index.resident_matrix(),
        ]
        for use in uses:
            with pytest.raises(IndexStoreError, match="is closed: open it again"):
                pool.submit(use).result(10)


def test_an_index_that_is_only_read_is_not_updated(index: Index, folder: Path) -> None:
    index.update(workers=0)
    (folder / "red.mp4").unlink()
    with Index.open(folder, index.encoder, location=index.store.path, read_only=True) as read:
        assert read.search("red")[0].path == folder / "red.mp4"
        with pytest.raises(IndexStoreError, match="opened only to be read"):
            read.update()
        assert len(read.store.ledger()) == 3


@pytest.mark.parametrize("seconds", [10_413_792_000, -10_413_792_000, 2**33, -(2**33)])
def test_files_of_any_time_are_indexed_and_left_alone_until_they_change(
    index: Index, folder: Path, seconds: int
) -> None:
    os.utime(folder / "red.mp4", (seconds, seconds))
    os.utime(folder / "damaged.mp4", (seconds, seconds))
    assert ((folder / "red.mp4").stat().st_mtime > 2**32) == (seconds > 0), "a disk may hold less"
    report = index.update(workers=0)
    assert (report.added, [fault.path for fault in report.failed]) == (3, ["damaged.mp4"])
    assert index.update(workers=0).unchanged == 3
    os.utime(folder / "damaged.mp4", (0, 0))
    assert index.update(workers=0).changed == 1
    before = Searching(where=Filter(older_than=datetime(1902, 1, 1, tzinfo=UTC)))
    after = Searching(where=Filter(newer_than=datetime(2200, 1, 1, tzinfo=UTC)))
    found = [[match.path.name for match in index.search("red", options)] for options in (before, after)]
    assert found == ([[], ["red.mp4"]] if seconds > 0 else [["red.mp4"], []])


def test_searching_goes_on_while_another_process_indexes(
    many: tuple[Path, Path, Path], tmp_path: Path, model: HBI
) -> None:
    with Index.open(many[0], model, location=many[1]) as index, closing(index.store):
        assert index.search("red") == []
        process = start_update(many, tmp_path, stop_after=7)
        read_until(process, "stopped")
        assert len(index.search("red", Searching(top_k=100, dedupe="off"))) == 7
        process.kill()
        process.communicate(timeout=30)
