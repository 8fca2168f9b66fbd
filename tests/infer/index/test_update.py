"""Updates of an index: new, changed and missing files, damage, interruption, several processes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError, EngineError, InputError
from hbi_infer.index.store import FileVersion, VideoFault
from hbi_infer.index.update import IndexProgress, IndexReport, VideoChange, plan_update
from hbi_infer.options import Finding, Searching
from hbi_infer.tokens.levels import LevelTokens
from tests.builders.tiny_bundle import COLOURS, write_video
from tests.builders.updates import NUM_VIDEOS, read_until, start_update, wait_until_gone


def test_what_has_not_changed_is_left_alone(index: Index, folder: Path) -> None:
    index.update(workers=1)
    version = index.store.version()
    report = index.update(workers=1)
    assert (report.added, report.changed, report.removed, report.unchanged, report.clips) == (0, 0, 0, 3, 0)
    assert (report.failed, report.clips_per_second) == ([], 0)
    assert [fault.path for fault in index.failures()] == ["damaged.mp4"]
    assert index.store.version() == version
    report = index.update(workers=1, retry_failed=True)
    assert (report.changed, report.unchanged, len(report.failed)) == (1, 2, 1)


def test_a_video_that_the_decoder_cut_short_is_tried_again_when_asked(index: Index, folder: Path) -> None:
    index.update(workers=1)
    for problem, is_tried in (("too_slow", True), ("too_large", True), ("crashed", True), ("damaged", False)):
        known = replace(index.store.ledger()["red.mp4"], status="partial", reason="is cut", problem=problem)
        index.store.put(known, [], np.empty(0, index.store.layout.dtype), np.empty((0, index.store.layout.width)))
        for retry_failed in (False, True):
            plan = plan_update(index.folder, index.store, retry_failed=retry_failed)
            assert (folder / "red.mp4" in plan.changed) == (is_tried and retry_failed)


def test_the_model_tries_failed_files_again_when_asked_to(model: HBI, folder: Path) -> None:
    seen: list[IndexProgress] = []
    for retry_failed in (False, True):
        model.index(
            folder,
            location=folder.parent / "i.sqlite",
            retry_failed=retry_failed,
            workers=1,
            progress=seen.append,
        ).close()
    assert (seen[0].videos_total, seen[-1].videos_total, seen[-1].path) == (3, 1, "damaged.mp4")


def test_added_changed_removed_and_mended_files(index: Index, folder: Path) -> None:
    index.update(workers=1)
    write_video(folder / "new.mp4", "green")
    write_video(folder / "red.mp4", "blue", "blue", "blue")
    write_video(folder / "damaged.mp4", "red")
    shutil.rmtree(folder / "sub")
    report = index.update(workers=1)
    assert (report.added, report.changed, report.removed, report.unchanged, report.clips) == (1, 2, 1, 0, 5)
    assert report.failed == index.failures() == []
    assert set(index.store.ledger()) == {"new.mp4", "red.mp4", "damaged.mp4"}
    best = {colour: index.search(colour, Searching(dedupe="off"))[0].path.name for colour in COLOURS}
    assert best == {"red": "damaged.mp4", "green": "new.mp4", "blue": "red.mp4"}


def test_a_file_of_the_same_size_with_a_newer_time_is_indexed_again(index: Index, folder: Path) -> None:
    index.update(workers=1)
    os.utime(folder / "red.mp4", ns=(0, 12345))
    assert index.update(workers=1).changed == 1
    assert index.store.ledger()["red.mp4"].version.modified_ns == 12345


def test_progress_tells_of_each_video(index: Index) -> None:
    seen: list[IndexProgress] = []
    index.update(workers=1, progress=seen.append)
    assert [progress.videos_done for progress in seen] == [0, 1, 2, 3]
    assert {progress.videos_total for progress in seen} == {3}
    assert {progress.path for progress in seen} == {"", "damaged.mp4", "red.mp4", "sub/green_blue.mkv"}
    assert seen[-1].clips == 3


def test_a_video_of_more_clips_than_a_batch(model: HBI, tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "long.mp4", *["red"] * 20, "green", *["red"] * 19)
    with Index.open(tmp_path / "videos", model, location=tmp_path / "index.sqlite") as index:
        assert index.update(workers=1).clips == 40
        assert index.search("green")[0].start_seconds == pytest.approx(40, abs=0.15)


def test_a_folder_without_videos_is_told(tmp_path: Path, model: HBI) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    with (
        Index.open(tmp_path, model, location=tmp_path / "index.sqlite") as index,
        pytest.raises(InputError, match=r"no videos in .* or below it: looked for files that end in .*\.mkv .*\.mp4"),
    ):
        index.update()


def test_videos_that_all_went_away_are_not_forgotten(index: Index, folder: Path) -> None:
    index.update(workers=1)
    folder.rename(folder.parent / "unplugged")
    folder.mkdir()
    with pytest.raises(InputError, match="no videos"):
        index.update(workers=1)
    assert index.store.num_clips() == 3


def test_links_that_lead_in_circles_or_nowhere_do_no_harm(index: Index, folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "nowhere.mp4").symlink_to(folder.parent / "nowhere.mp4")
    report = index.update(workers=1)
    assert report.clips == 3
    assert "damaged.mp4" in {fault.path for fault in report.failed}
    assert index.update(workers=1).clips == 0


def test_what_is_excluded_is_forgotten_and_stays_so(index: Index, folder: Path) -> None:
    index.update(workers=0)
    report = index.update(workers=0, finding=Finding(exclude=("sub", "damaged*")))
    assert (report.removed, report.unchanged, report.added) == (2, 1, 0)
    assert {(each.path, each.reason) for each in report.left_out} == {
        ("damaged.mp4", "excluded"),
        ("notes.txt", "other_suffix"),
        ("sub", "excluded"),
    }
    assert [match.path.name for match in index.search("blue")] == ["red.mp4"]
    assert index.update(workers=0).unchanged == 1, "the index keeps it"
    report = index.update(workers=0, finding=Finding())
    assert (report.added, index.finding) == (2, Finding())


def test_what_is_excluded_is_kept_where_nothing_else_changes(index: Index, folder: Path, model: HBI) -> None:
    index.update(workers=0)
    index.update(workers=0, finding=Finding(exclude=("later",)))
    write_video(folder / "later" / "a.mp4", "red")
    with model.index(folder, location=index.store.path, workers=0) as again:
        assert again.finding == Finding(exclude=("later",))
        assert again.store.num_clips() == 3
    with model.index(folder, location=index.store.path, workers=0, rebuild=True) as anew:
        assert (anew.finding, anew.store.num_clips()) == (Finding(), 4)


def test_videos_without_a_suffix_stay_once_they_were_asked_for(index: Index, folder: Path) -> None:
    (folder / "red.mp4").rename(folder / "red")
    (folder / "sub" / "green_blue.mkv").rename(folder / "sub" / "green_blue.download")
    assert index.update(workers=0).clips == 0
    report = index.update(workers=0, finding=Finding(all_files=True))
    assert (report.added, report.clips) == (2, 3)
    assert [(each.path, each.reason) for each in report.left_out] == [("notes.txt", "no_video_inside")]
    report = index.update(workers=0)
    assert (report.unchanged, report.removed) == (3, 0)


def test_a_linked_drive_that_is_unplugged_is_not_forgotten(index: Index, folder: Path) -> None:
    drive = folder.parent / "drive"
    write_video(drive / "sub" / "green.mp4", "green")
    (folder / "films").symlink_to(drive)
    index.update(workers=0)
    assert index.search("green", top_k=1)[0].path in (
        folder / "films" / "sub" / "green.mp4",
        folder / "sub" / "green_blue.mkv",
    )
    drive.rename(folder.parent / "unplugged")
    report = index.update(workers=0)
    assert (report.removed, report.unchanged) == (0, 3)
    assert "films/sub/green.mp4" in index.store.ledger()
    (folder.parent / "unplugged").rename(drive)
    assert index.update(workers=0).unchanged == 4
    (folder / "films").unlink()
    assert index.update(workers=0).removed == 1


def test_a_folder_without_videos_says_what_is_there(tmp_path: Path, model: HBI) -> None:
    (tmp_path / "a.mxf").touch()
    (tmp_path / ".b.mp4").touch()
    with Index.open(tmp_path, model, location=tmp_path / "index.sqlite") as index:
        with pytest.raises(InputError, match=r"left out: 1 hidden, 1 of a format that is not read \(a\.mxf\)"):
            index.update()
        with pytest.raises(InputError, match=r"no videos in .* or below it: no file's content is one; left out: "):
            index.update(finding=Finding(all_files=True))


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Root can read everything; its tests are those of somebody else here."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_what_is_indexed_of_a_folder_that_cannot_be_read_is_kept(model: HBI, open_folder: Path, mode: int) -> None:
    folder = open_folder / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "sub" / "deeper" / "green.mp4", "green")
    with Index.open(folder, model, location=open_folder / "index.sqlite") as index:
        index.update(workers=0)
        (folder / "lost+found").mkdir(mode=0)
        (folder / "sub").chmod(mode)
        with without_roots_rights():
            report = index.update(workers=0)
            assert report.failed == [VideoFault("sub", "cannot be read: Permission denied", "not_opened")]
            assert (report.removed, report.unchanged) == (0, 1)
        assert index.search("green")[0].path == folder / "sub" / "deeper" / "green.mp4"
        (folder / "sub").chmod(0o755)
        report = index.update(workers=0)
        assert (report.added, report.removed, report.unchanged, report.failed) == (0, 0, 2, [])


def test_a_video_that_could_not_be_opened_is_indexed_once_it_can_be(model: HBI, open_folder: Path) -> None:
    write_video(open_folder / "videos" / "green.mp4", "green")
    with Index.open(open_folder / "videos", model, location=open_folder / "index.sqlite") as index:
        index.update(workers=0)
        video = write_video(open_folder / "videos" / "red.mp4", "red")
        video.chmod(0)
        open_folder.chmod(0o777)
        for file in open_folder.glob("index.sqlite*"):
            file.chmod(0o666)
        with without_roots_rights():
            denied = VideoFault("red.mp4", "cannot be opened: Permission denied", "not_opened")
            assert index.update(workers=0).failed == [denied]
            report = index.update(workers=0)
            assert (report.unchanged, report.failed) == (2, []), "it is not tried in vain"
        video.chmod(0o644)
        report = index.update(workers=0)
        assert (report.changed, report.clips, index.failures()) == (1, 1, [])


def update(index: Index) -> tuple[IndexReport, set[tuple[str, str, str]]]:
    changes: list[VideoChange] = []
    report = index.update(workers=0, on_change=changes.append)
    return report, {(change.kind, change.source, change.path) for change in changes}


def colours(index: Index) -> dict[str, str]:
    """The colour that each video is found by; every one has but one clip."""
    found = {}
    for colour in COLOURS:
        for match in index.search(colour, Searching(top_k=10, dedupe="off")):
            name = match.path.relative_to(index.folder).as_posix()
            if name not in found or match.score > found[name][0]:
                found[name] = match.score, colour
    return {name: colour for name, (_, colour) in found.items()}


@pytest.fixture
def three(tmp_path: Path, model: HBI) -> Iterator[Index]:
    """An index of three videos of one size and time, but for blue.mp4, and of one colour each."""
    folder = tmp_path / "three"
    for colour in COLOURS:
        write_video(folder / f"{colour}.mp4", colour)
    size = max(path.stat().st_size for path in folder.iterdir())
    for path in folder.iterdir():
        with path.open("ab") as file:
            file.write(bytes(size + (path.stem == "blue") - path.stat().st_size))
        os.utime(path, ns=(10**18, 10**18))
    with Index.open(folder, model, location=tmp_path / "three.sqlite") as index:
        assert index.update(workers=0).added == 3
        assert colours(index) == {f"{colour}.mp4": colour for colour in COLOURS}
        yield index


def test_moved_files_are_not_decoded_again(three: Index) -> None:
    folder = three.folder
    (folder / "sub").mkdir()
    (folder / "red.mp4").rename(folder / "sub" / "red.mp4")
    (folder / "green.mp4").rename(folder / "Green.MP4")
    report, changes = update(three)
    assert changes == {("moved", "red.mp4", "sub/red.mp4"), ("moved", "green.mp4", "Green.MP4")}
    assert (report.moved, report.added, report.removed, report.changed, report.unchanged) == (2, 0, 0, 0, 1)
    assert (report.clips, report.decode_seconds) == (0, 0.0)
    assert colours(three) == {"sub/red.mp4": "red", "Green.MP4": "green", "blue.mp4": "blue"}
    assert update(three)[1] == set()


def test_swapped_names_are_seen_though_size_and_time_are_the_same(three: Index) -> None:
    folder = three.folder
    (folder / "red.mp4").rename(folder / "t")
    (folder / "green.mp4").rename(folder / "red.mp4")
    (folder / "t").rename(folder / "green.mp4")
    report, changes = update(three)
    assert changes == {("moved", "green.mp4", "red.mp4"), ("moved", "red.mp4", "green.mp4")}
    assert (report.moved, report.clips) == (2, 0)
    assert colours(three) == {"red.mp4": "green", "green.mp4": "red", "blue.mp4": "blue"}


def test_a_new_file_takes_the_name_of_a_moved_one(three: Index) -> None:
    folder = three.folder
    (folder / "red.mp4").rename(folder / "old.mp4")
    write_video(folder / "red.mp4", "green")
    _, changes = update(three)
    assert changes == {("moved", "red.mp4", "old.mp4"), ("changed", "", "red.mp4")}
    assert colours(three) == {"old.mp4": "red", "red.mp4": "green", "green.mp4": "green", "blue.mp4": "blue"}


def test_a_moved_file_takes_the_place_of_another_one(three: Index) -> None:
    (three.folder / "red.mp4").replace(three.folder / "blue.mp4")
    report, changes = update(three)
    assert changes == {("moved", "red.mp4", "blue.mp4")}
    assert (report.moved, report.removed) == (1, 0)
    assert colours(three) == {"blue.mp4": "red", "green.mp4": "green"}


def test_copies_with_their_time_and_hard_links_take_over_the_tokens(three: Index) -> None:
    shutil.copy2(three.folder / "red.mp4", three.folder / "copy.mp4")
    os.link(three.folder / "green.mp4", three.folder / "link.mp4")
    shutil.copyfile(three.folder / "blue.mp4", three.folder / "later.mp4")
    report, changes = update(three)
    assert changes == {
        ("copied", "red.mp4", "copy.mp4"),
        ("copied", "green.mp4", "link.mp4"),
        ("added", "", "later.mp4"),
    }
    assert (report.added, report.moved, report.clips, report.unchanged) == (3, 0, 1, 3)
    expected = {"copy.mp4": "red", "link.mp4": "green", "later.mp4": "blue"}
    assert colours(three) == expected | {f"{colour}.mp4": colour for colour in COLOURS}


def test_a_file_whose_content_was_changed_with_a_kept_time_is_not_mistaken(three: Index) -> None:
    red, green = (three.folder / f"{colour}.mp4" for colour in ("red", "green"))
    green.unlink()
    (three.folder / "new.mp4").write_bytes(red.read_bytes())
    red.write_bytes(
        write_video(three.folder.parent / "other.mp4", "blue").read_bytes().ljust(red.stat().st_size, b"\0")
    )
    for path in (red, three.folder / "new.mp4"):
        os.utime(path, ns=(10**18, 10**18))
    _, changes = update(three)
    assert changes == {("moved", "red.mp4", "new.mp4"), ("changed", "", "red.mp4"), ("removed", "", "green.mp4")}
    assert colours(three) == {"new.mp4": "red", "red.mp4": "blue", "blue.mp4": "blue"}


def test_a_file_that_became_a_folder_is_forgotten_and_looked_into(three: Index) -> None:
    (three.folder / "red.mp4").rename(three.folder.parent / "kept")
    (three.folder / "red.mp4").mkdir()
    (three.folder.parent / "kept").rename(three.folder / "red.mp4" / "inner.mp4")
    assert update(three)[1] == {("moved", "red.mp4", "red.mp4/inner.mp4")}
    assert colours(three)["red.mp4/inner.mp4"] == "red"


def test_a_failed_file_that_was_moved_stays_failed_until_asked(index: Index, folder: Path) -> None:
    index.update(workers=0)
    (folder / "damaged.mp4").rename(folder / "worse.mp4")
    report, changes = update(index)
    assert (changes, report.failed) == ({("moved", "damaged.mp4", "worse.mp4")}, [])
    assert [fault.path for fault in index.failures()] == ["worse.mp4"]
    (folder / "worse.mp4").rename(folder / "worst.mp4")
    report = index.update(workers=0, retry_failed=True)
    assert (report.added, report.removed, len(report.failed)) == (1, 1, 1)


def test_marks_are_added_to_what_is_seen_unchanged(three: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = three.store.ledger()
    for name in ("red.mp4", "green.mp4"):
        three.store.put_marks([replace(marked[name], mark=None)])
    (three.folder / "green.mp4").rename(three.folder / "lost.mp4")
    monkeypatch.setattr("hbi_infer.index.update.MARKING_SECONDS", -1.0)
    assert update(three)[1] == {("added", "", "lost.mp4"), ("removed", "", "green.mp4")}
    assert three.store.ledger()["red.mp4"].mark is None, "there was no time"
    monkeypatch.undo()
    assert update(three)[1] == set()
    assert three.store.ledger()["red.mp4"] == marked["red.mp4"]


def test_what_is_held_back_is_neither_decoded_nor_forgotten_and_moves_are_not(three: Index) -> None:
    folder = three.folder
    write_video(folder / "new.mp4", "red")
    write_video(folder / "blue.mp4", "red", "red")
    (folder / "red.mp4").unlink()
    (folder / "green.mp4").rename(folder / "moved.mp4")
    asked = []

    def holds_back(path: str, version: FileVersion | None) -> bool:
        asked.append((path, version is None))
        return True

    report = three.update(workers=0, holds_back=holds_back)
    assert set(asked) == {("new.mp4", False), ("blue.mp4", False), ("red.mp4", True)}
    assert (report.added, report.changed, report.removed, report.moved) == (0, 0, 0, 1)
    assert set(three.store.ledger()) == {"red.mp4", "blue.mp4", "moved.mp4"}
    assert update(three)[1] == {("added", "", "new.mp4"), ("changed", "", "blue.mp4"), ("removed", "", "red.mp4")}


class NotFinite(HBI):
    """A model whose numbers overflow on green frames."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        levels = super().encode_video(frames, mask)
        green = frames[:, 0, 0, 0].argmax(axis=-1) == 1
        levels["entity"].tokens[green] = np.inf
        return levels


def test_a_video_on_which_the_model_fails_is_not_stored(folder: Path, bundle: Path) -> None:
    with Index.open(folder, NotFinite.load(bundle), location=folder.parent / "index.sqlite") as index:
        report = index.update(workers=1)
        reason = "makes the model give numbers that are not finite"
        assert VideoFault("sub/green_blue.mkv", reason, "not_finite") in report.failed
        assert report.clips == index.store.num_clips() == 1


class NeverFinite(HBI):
    """A model of which no number is finite."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        levels = super().encode_video(frames, mask)
        levels["event"].tokens[:] = np.nan
        return levels


def test_a_model_that_gives_no_numbers_is_told_and_costs_no_index(folder: Path, model: HBI, bundle: Path) -> None:
    location = folder.parent / "index.sqlite"
    with Index.open(folder, model, location=location) as index:
        index.update(workers=0)
        number = index.store.num_clips()
    with (
        Index.open(folder, NeverFinite.load(bundle), location=location, rebuild=True) as index,
        pytest.raises(EngineError, match=r"the graph video_encoder of .* gives numbers .* not finite \(event_tokens\)"),
    ):
        index.update(workers=0)
    with Index.open(folder, model, location=location) as index:
        assert index.store.num_clips() == number > 0


class Weightless(HBI):
    """A model that weighs nothing in green frames."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        levels = super().encode_video(frames, mask)
        levels["entity"].weights[frames[:, 0, 0, 0].argmax(axis=-1) == 1] = 0
        return levels


def test_a_video_without_weights_is_not_stored(folder: Path, bundle: Path) -> None:
    with Index.open(folder, Weightless.load(bundle), location=folder.parent / "index.sqlite") as index:
        report = index.update(workers=0)
        reason = "makes the model give weights that are negative or all 0 (entity_weights)"
        assert VideoFault("sub/green_blue.mkv", reason, "not_finite") in report.failed
        assert index.search("red")


class OtherLevels(HBI):
    """A model that does not give what its manifest says."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        levels = super().encode_video(frames, mask)
        return levels | {"event": levels["entity"]}


def test_a_model_that_contradicts_its_manifest_is_told(folder: Path, bundle: Path) -> None:
    with (
        Index.open(folder, OtherLevels.load(bundle), location=folder.parent / "index.sqlite") as index,
        pytest.raises(BundleError, match="does not give the tokens that its manifest says"),
    ):
        index.update(workers=1)


class NotRunning(HBI):
    """A model of which only the video encoder does not run."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        raise BundleError("the video encoder was altered")


def test_an_index_that_cannot_be_made_anew_is_kept(folder: Path, model: HBI, bundle: Path) -> None:
    location = folder.parent / "index.sqlite"
    with Index.open(folder, model, location=location) as index:
        index.update(workers=1)
        ledger = index.store.ledger()
    with (
        Index.open(folder, NotRunning.load(bundle), location=location, rebuild=True) as index,
        pytest.raises(BundleError, match="altered"),
    ):
        index.update(workers=1)
    empty = folder.parent / "empty"
    empty.mkdir()
    with (
        Index.open(empty, model, location=location, rebuild=True) as index,
        pytest.raises(InputError, match="no videos"),
    ):
        index.update(workers=1)
    with Index.open(folder, model, location=location) as index:
        assert index.store.ledger() == ledger
        assert index.store.num_clips() == 3
    write_video(empty / "blue.mp4", "blue")
    with Index.open(empty, model, location=location, rebuild=True) as index:
        index.update(workers=1)
        assert [match.path for match in index.search("red")] == [empty / "blue.mp4"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_update_that_is_stopped_keeps_what_it_stored_and_is_resumed(
    many: tuple[Path, Path, Path], tmp_path: Path, model: HBI, how: signal.Signals
) -> None:
    process = start_update(many, tmp_path, stop_after=5)
    stored = {line.removeprefix("stored ") for line in read_until(process, "stopped")[1:-1]}
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (-how, 130)
    assert how == signal.SIGKILL or "KeyboardInterrupt" in errors
    wait_until_gone(process.pid)
    assert len(stored) == 5
    with Index.open(many[0], model, location=many[1]) as index:
        assert set(index.store.ledger()) == stored
        report = index.update(workers=1)
        assert (report.added, report.unchanged, report.failed) == (NUM_VIDEOS - 5, 5, [])
        assert index.store.num_clips() == NUM_VIDEOS
        assert len(index.search("red", Searching(top_k=100, dedupe="off"))) == NUM_VIDEOS


def test_two_processes_index_one_folder_without_loss_or_double_work(
    many: tuple[Path, Path, Path], tmp_path: Path, model: HBI
) -> None:
    first = start_update(many, tmp_path, stop_after=5)
    read_until(first, "stopped")
    second = start_update(many, tmp_path, stop_after=0)
    read_until(second, "waiting")
    first.kill()  # the second one takes over from a process that died
    first.communicate(timeout=30)
    output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert output.split("\n")[-2] == f"done {NUM_VIDEOS - 5} 5"
    with Index.open(many[0], model, location=many[1]) as index:
        assert len(index.store.ledger()) == index.store.num_clips() == NUM_VIDEOS


def test_two_processes_that_start_at_once(many: tuple[Path, Path, Path], tmp_path: Path, model: HBI) -> None:
    processes = [start_update(many, tmp_path, stop_after=0) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    done = [output.split("\n")[-2] for output, _ in results]
    assert sorted(done) == ["done 0 20", "done 20 0"]
    with Index.open(many[0], model, location=many[1]) as index:
        assert len(index.store.ledger()) == index.store.num_clips() == NUM_VIDEOS


def test_two_processes_make_an_index_anew_at_once(many: tuple[Path, Path, Path], tmp_path: Path, model: HBI) -> None:
    processes = [start_update(many, tmp_path, 0, "--rebuild") for _ in range(2)]
    for process in processes:
        read_until(process, "opened")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    done = [output.split("\n")[-2] for output, _ in results]
    assert sorted(done) == ["done 0 20", "done 20 0"], "each video is indexed once"
    with Index.open(many[0], model, location=many[1]) as index:
        assert len(index.store.ledger()) == index.store.num_clips() == NUM_VIDEOS
