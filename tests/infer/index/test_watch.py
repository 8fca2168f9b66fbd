"""Watching a folder: growing files, moves, folders and indexes that go and come back, drives."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError
from hbi_infer.index import watch
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import FileVersion
from hbi_infer.index.update import IndexReport, VideoChange
from hbi_infer.index.watch import Settling, Watcher
from hbi_infer.index.writer_lock import sole_writer
from tests.builders.tiny_bundle import write_video

LIMIT_SECONDS = 20
SETTLE_SECONDS = 0.3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "RESCAN_SECONDS", 5.0)


class Story:
    """A watch in which each step waits for a change or a situation, then does something; the last one ends it."""

    def __init__(self, folder: Path, model: HBI, *, poll_seconds: float | None = None) -> None:
        self.index_file = folder.parent / "index.sqlite"
        self.told: list[tuple[str, str]] = []
        self.left: Iterator[tuple[tuple[str, str], Callable[[], object]]] = iter(())
        self.waits_for: tuple[str, str] = ("", "")
        self.folder = folder
        self.watcher = Watcher(
            open_index=lambda: Index.open(folder, model, location=self.index_file),
            update=self.update,
            on_change=lambda change: self.tell((change.kind, change.path)),
            on_situation=lambda situation, _: self.tell((situation, "")),
            settle_seconds=SETTLE_SECONDS,
            poll_seconds=poll_seconds,
        )

    def update(self, index: FolderIndex, on_change: Callable[[VideoChange], None], holds_back: Settling) -> IndexReport:
        assert time.monotonic() < self.deadline, (self.waits_for, self.told)
        return index.update(workers=0, on_change=on_change, holds_back=holds_back)

    def tell(self, what: tuple[str, str]) -> None:
        self.told.append(what)
        if what == self.waits_for:
            self.action()
            self.step()

    def step(self) -> None:
        self.waits_for, self.action = next(self.left)

    def run(self, *steps: tuple[tuple[str, str], Callable[[], object]]) -> None:
        self.left = iter(steps)
        self.step()
        self.deadline = time.monotonic() + LIMIT_SECONDS
        with pytest.raises(KeyboardInterrupt):
            self.watcher.run()


def end() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("poll_seconds", [None, 0.2])
def test_files_that_come_move_and_go_are_followed(folder: Path, model: HBI, poll_seconds: float | None) -> None:
    story = Story(folder, model, poll_seconds=poll_seconds)
    story.run(
        (("added", "sub/green_blue.mkv"), lambda: write_video(folder / "new" / "a.mp4", "blue")),
        (("added", "new/a.mp4"), lambda: (folder / "new").rename(folder / "old")),
        (("moved", "old/a.mp4"), lambda: (folder / "old" / "a.mp4").unlink()),
        (("removed", "old/a.mp4"), end),
    )
    assert ("failed", "damaged.mp4") in story.told
    assert len(story.told) == len(set(story.told)), "nothing is told twice"
    with Index.open(folder, model, location=story.index_file, read_only=True) as index:
        assert set(index.store.ledger()) == {"red.mp4", "sub/green_blue.mkv", "damaged.mp4"}


def test_a_folder_that_is_gone_is_waited_for_and_nothing_is_forgotten(folder: Path, model: HBI) -> None:
    away = folder.parent / "away"

    def come_back() -> None:
        write_video(away / "new.mp4", "red")
        away.rename(folder)

    story = Story(folder, model)
    story.run(
        (("added", "sub/green_blue.mkv"), lambda: folder.rename(away)),
        (("gone", ""), come_back),
        (("added", "new.mp4"), lambda: (folder.rename(away), folder.mkdir())),
        (("empty", ""), lambda: (folder.rmdir(), away.rename(folder))),
        (("watching", ""), end),
    )
    assert not any(kind == "removed" for kind, _ in story.told)


def test_an_index_that_was_deleted_is_made_anew(folder: Path, model: HBI) -> None:
    story = Story(folder, model)

    def delete() -> None:
        for file in folder.parent.glob("index.sqlite*"):
            file.unlink()

    story.run(
        (("added", "sub/green_blue.mkv"), delete),
        (("made_anew", ""), lambda: None),
        (("added", "sub/green_blue.mkv"), end),
    )
    with Index.open(folder, model, location=story.index_file, read_only=True) as index:
        assert "sub/green_blue.mkv" in index.store.ledger()


def test_two_watchers_of_one_index_are_one_too_many(folder: Path, model: HBI) -> None:
    story = Story(folder, model)
    with (
        sole_writer(folder.parent / "index.sqlite.watch"),
        pytest.raises(IndexStoreError, match=r"another process watches the index .* already: end that one"),
    ):
        story.watcher.run()


def test_a_folder_that_the_system_does_not_watch_is_looked_through(
    folder: Path, model: HBI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_arguments: object, **_options: object) -> Iterator[object]:
        raise OSError("OS file watch limit reached.")

    monkeypatch.setattr("watchfiles.watch", no_more)
    monkeypatch.setattr(watch, "FALLBACK_SECONDS", 0.2)
    story = Story(folder, model)
    story.run(
        (("not_told", ""), lambda: None),
        (("added", "red.mp4"), lambda: write_video(folder / "new.mp4", "red")),
        (("added", "new.mp4"), end),
    )


class TestSettling:
    """What waits, by a clock that the test turns."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [100.0]
        monkeypatch.setattr("hbi_infer.index.watch.time.monotonic", lambda: now[0])
        return now

    def test_a_file_waits_until_it_has_stayed_the_same(self, tmp_path: Path, clock: list[float]) -> None:
        settling = Settling(tmp_path, 3.0)
        waited = []
        for size in (1, 1, 2, 2, 2, 2):
            with settling.a_look():
                waited.append(settling("a.mp4", FileVersion(size, 1)))
                assert settling("a.mp4", FileVersion(size, 1)) == waited[-1], "an update asks twice"
            assert settling.is_waiting == waited[-1]
            clock[0] += 1.5
        assert waited == [True, True, True, True, False, False]

    def test_what_is_not_asked_about_begins_anew(self, tmp_path: Path, clock: list[float]) -> None:
        settling = Settling(tmp_path, 3.0)
        for asked in (True, False, True):
            with settling.a_look():
                assert not asked or settling("a.mp4", None)
            clock[0] += 5
        with settling.a_look():
            assert not settling("a.mp4", None)

    def test_videos_of_a_drive_that_is_not_there_wait_for_it(
        self, tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drives = {tmp_path: 1, tmp_path / "usb": 2, tmp_path / "usb" / "cats": 2}
        monkeypatch.setattr(watch, "_drive", drives.get)
        settling = Settling(tmp_path, 3.0)
        videos = {"a.mp4", "usb/b.mp4", "usb/cats/c.mp4"}
        settling.remember_drives(videos)

        def kept() -> set[str]:
            for _ in range(2):
                with settling.a_look():
                    held = {path for path in videos if settling(path, None)}
                settling.remember_drives(videos)
                clock[0] += 5
            return held

        assert kept() == set()
        drives.update({tmp_path / "usb": 1})
        drives.pop(tmp_path / "usb" / "cats")
        assert kept() == {"usb/b.mp4", "usb/cats/c.mp4"}
        assert not settling.is_waiting, "it may take days"
        with settling.a_look():  # another drive, with all the videos
            pass
        settling.remember_drives(videos)
        assert kept() == set()


def test_many_files_at_once_are_told_once_each(folder: Path, model: HBI) -> None:
    source = folder / "red.mp4"
    number = 300

    def flood() -> None:
        for name in range(number):
            shutil.copy2(source, folder / f"{name}.mp4")

    story = Story(folder, model)
    seen = []

    def count(change: VideoChange) -> None:
        seen.append((change.kind, change.path))
        if sum(kind == "copied" for kind, _ in seen) == number:
            end()
        if seen[-1] == ("added", "sub/green_blue.mkv"):
            flood()

    story.watcher.on_change = count
    story.deadline = time.monotonic() + LIMIT_SECONDS
    with pytest.raises(KeyboardInterrupt):
        story.watcher.run()
    assert len(seen) == len(set(seen)) == number + 3
