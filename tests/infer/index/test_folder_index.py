from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError, IndexStoreError, InputError
from hbi_infer.index.folder_index import default_location
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress
from hbi_infer.options import Searching
from hbi_infer.tokens.levels import LevelTokens
from tests.builders.tiny_bundle import COLOURS, write_tiny_bundle, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> HBI:
    return HBI.load(bundle, device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos: red; green, then blue, in clips of their own; and one that is damaged."""
    folder = tmp_path / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "sub" / "green_blue.mkv", "green", "blue")
    (folder / "damaged.mp4").write_bytes(b"no video" * 100)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture
def index(folder: Path, model: HBI) -> Iterator[Index]:
    with Index.open(folder, model, location=folder.parent / "index.sqlite") as index:
        yield index


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
    best = {colour: index.search(colour)[0].path.name for colour in COLOURS}
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


@pytest.mark.parametrize(("name", "reason"), [("gone", "No such file"), ("file", "Not a directory")])
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, model: HBI, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"cannot read the folder .*{name} \({reason}.*: give a folder of videos"):
        Index.open(tmp_path / name, model, location=tmp_path / "index.sqlite")


def test_links_that_lead_in_circles_or_nowhere_do_no_harm(index: Index, folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "nowhere.mp4").symlink_to(folder.parent / "nowhere.mp4")
    report = index.update(workers=1)
    assert report.clips == 3
    assert "damaged.mp4" in {fault.path for fault in report.failed}
    assert index.update(workers=1).clips == 0


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


def test_tokens_that_were_damaged_in_the_file_are_not_searched(index: Index) -> None:
    index.update(workers=1)
    with closing(sqlite3.connect(index.store.path, isolation_level=None)) as connection:
        [(length,)] = connection.execute("SELECT length(record) FROM tokens WHERE clip_id = 2")
        connection.execute("UPDATE tokens SET record = ? WHERE clip_id = 2", (b"\xff" * length,))
    with pytest.raises(IndexStoreError, match=r"is damaged \(tokens that make no sense\).*--rebuild"):
        index.search("red")


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


UPDATE = """
import sys, time
from hbi_infer.api import Index
from hbi_infer.api import HBI

def main():
    folder, location, bundle, stop_after, *rebuild = sys.argv[1:]

    def progress(done):
        if not done.path:
            return
        print("stored", done.path, flush=True)
        if done.videos_done == int(stop_after):
            print("stopped", flush=True)
            time.sleep(60)

    model = HBI.load(bundle, device="cpu", threads=1)
    with Index.open(folder, model, location=location, rebuild=bool(rebuild)) as index:
        print("opened", flush=True)
        if rebuild:
            sys.stdin.readline()
        report = index.update(workers=2, progress=progress, on_wait=lambda: print("waiting", flush=True))
        print("done", report.added, report.unchanged, flush=True)

if __name__ == "__main__":
    main()
"""
NUM_VIDEOS = 20


@pytest.fixture
def many(tmp_path: Path, bundle: Path) -> tuple[Path, Path, Path]:
    """A folder of twenty short videos, the index's place and the bundle."""
    folder = tmp_path / "videos"
    first = write_video(folder / "00.mp4", "red", seconds_each=0.5)
    for number in range(1, NUM_VIDEOS):
        shutil.copyfile(first, folder / f"{number:02}.mp4")
    return folder, tmp_path / "index.sqlite", bundle


def start_update(
    places: tuple[Path, Path, Path], tmp_path: Path, stop_after: int, *options: str
) -> subprocess.Popen[str]:
    script = tmp_path / "update.py"
    script.write_text(UPDATE)
    command = [sys.executable, str(script), *map(str, places), str(stop_after), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # so that it is stopped with its workers, as by a terminal
    )


def read_until(process: subprocess.Popen[str], line: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != line:
        got = process.stdout.readline()
        assert got, process.stderr and process.stderr.read()
        lines.append(got.strip())
    return lines


def wait_until_gone(group: int) -> None:
    """Wait for every process of the group to end: workers must not outlive an update."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("processes were left behind")


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
        assert len(index.search("red", top_k=100)) == NUM_VIDEOS


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


def test_searching_goes_on_while_another_process_indexes(
    many: tuple[Path, Path, Path], tmp_path: Path, model: HBI
) -> None:
    with Index.open(many[0], model, location=many[1]) as index, closing(index.store):
        assert index.search("red") == []
        process = start_update(many, tmp_path, stop_after=7)
        read_until(process, "stopped")
        assert len(index.search("red", top_k=100)) == 7
        process.kill()
        process.communicate(timeout=30)
