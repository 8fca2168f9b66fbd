"""The data folder: bundles come whole or not at all, one build at a time, and leave nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hbi_infer.catalog.names import EVERYDAY, HubName
from hbi_infer.catalog.shelf import Shelf, data_folder, size_of
from hbi_infer.errors import BundleError
from tests.builders.command_line import WITHOUT_ROOTS_RIGHTS, run_python
from tests.paths import ROOT

NAME = HubName("tiny/clip")
FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "data")


def put(shelf: Shelf, name: str | HubName, commit: str, version: str = "1", text: str = "{}") -> Path:
    """Build and keep a bundle that is a manifest."""
    with shelf.sole_builder(), shelf.building() as folder:
        (folder / "bundle").mkdir()
        (folder / "bundle" / "bundle.json").write_text(text)
        return shelf.keep(folder / "bundle", name, commit, version)


def test_the_data_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Shelf().folder == data_folder() == tmp_path / "hbi-infer"


def test_a_bundle_is_found_by_revision_by_commit_and_by_the_converters_version(shelf: Shelf) -> None:
    assert shelf.find(NAME, "1") is None
    place = put(shelf, NAME, FIRST)
    assert place == shelf.folder / "bundles" / "tiny--clip" / f"{FIRST}-1"
    assert shelf.find(NAME, "1") == shelf.find(HubName("tiny/clip", FIRST), "1") == place
    assert shelf.find(NAME, "2") is shelf.find(HubName("tiny/clip", "v1"), "1") is None
    assert shelf.find(HubName("tiny/clip", "../.."), "1") is None


def test_everyday_has_a_place_of_its_own(shelf: Shelf) -> None:
    place = put(shelf, EVERYDAY, "", "3")
    assert shelf.find(EVERYDAY, "3") == place == shelf.folder / "bundles" / "everyday" / "3"
    assert [(each.name, each.commit, each.version) for each in shelf.shelved()] == [(EVERYDAY, "", "3")]
    put(shelf, EVERYDAY, "", "4")
    assert shelf.find(EVERYDAY, "3") is None


def test_what_no_name_means_more_is_removed(shelf: Shelf) -> None:
    put(shelf, NAME, FIRST)
    put(shelf, HubName("tiny/clip", "v1"), FIRST)
    put(shelf, NAME, SECOND)
    assert [(str(each.name), each.commit) for each in shelf.shelved()] == [
        ("tiny/clip@v1", FIRST),
        ("tiny/clip", SECOND),
    ]
    put(shelf, HubName("tiny/clip", "v1"), SECOND)
    assert shelf.find(HubName("tiny/clip", FIRST), "1") is None
    put(shelf, NAME, SECOND, version="2")
    assert [each.version for each in shelf.shelved()] == ["2", "2"]


def test_a_bundle_is_replaced_by_one_of_the_same_commit(shelf: Shelf) -> None:
    put(shelf, NAME, FIRST, text="old")
    assert (put(shelf, NAME, FIRST, text="new") / "bundle.json").read_text() == "new"
    assert list((shelf.folder / "building").iterdir()) == []


def test_a_revision_can_come_to_mean_a_commit_that_is_there(shelf: Shelf) -> None:
    place = put(shelf, NAME, FIRST)
    with shelf.sole_builder():
        shelf.point(HubName("tiny/clip", "v1"), FIRST)
    assert shelf.find(HubName("tiny/clip", "v1"), "1") == place


def test_removing_one_revision_keeps_the_bundles_of_others(shelf: Shelf) -> None:
    put(shelf, NAME, FIRST)
    put(shelf, HubName("tiny/clip", "v1"), SECOND, text="x" * 1000)
    downloads = shelf.downloads(NAME, FIRST)
    downloads.mkdir(parents=True)
    (downloads / "model.safetensors.part").write_bytes(bytes(500))
    assert shelf.unfinished() == {"tiny/clip": 500}
    with shelf.sole_builder():
        assert 1500 <= shelf.remove(HubName("tiny/clip", "v1")) < 1600
    assert shelf.unfinished() == {}
    assert [str(each.name) for each in shelf.shelved()] == ["tiny/clip"]
    with shelf.sole_builder():
        assert shelf.remove(NAME) > 0
        assert shelf.remove(NAME) == shelf.remove(EVERYDAY) == 0
    assert shelf.shelved() == []
    assert size_of(shelf.folder / "bundles") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"model": "tiny/clip"}',
        b'{"model": "../x", "commits": {}}',
        b'{"model": "tiny/clip", "commits": {"main": "../../x"}}',
        b'{"model": "tiny/clip", "commits": {}, "commits": {}}',
        b"\xff",
    ],
)
def test_a_damaged_record_is_told_and_replaced_by_the_next_build(shelf: Shelf, content: bytes) -> None:
    put(shelf, NAME, FIRST)
    (shelf.folder / "bundles" / "tiny--clip" / "revisions.json").write_bytes(content)
    for look in (lambda: shelf.find(NAME, "1"), shelf.shelved):
        with pytest.raises(BundleError, match=r"revisions.json is damaged \(.*\): delete it, and get the model again"):
            look()
    put(shelf, NAME, SECOND)
    assert [(str(each.name), each.commit) for each in shelf.shelved()] == [("tiny/clip", SECOND)]


def test_a_record_of_many_revisions_is_read(shelf: Shelf) -> None:
    put(shelf, NAME, FIRST)
    record = shelf.folder / "bundles" / "tiny--clip" / "revisions.json"
    record.write_text(json.dumps({"model": "tiny/clip", "commits": {f"v{number}": FIRST for number in range(100)}}))
    assert len(shelf.shelved()) == 100


def test_builds_wait_for_each_other(shelf: Shelf) -> None:
    waits, order = [], []
    started = threading.Event()

    def second() -> None:
        with shelf.sole_builder(lambda: (waits.append(1), started.set())):
            order.append("second")

    with shelf.sole_builder():
        thread = threading.Thread(target=second)
        thread.start()
        assert started.wait(10)
        time.sleep(0.25)
        order.append("first")
    thread.join()
    assert (order, waits) == (["first", "second"], [1])


HOLD = """
import sys, time
from pathlib import Path
from hbi_infer.catalog.shelf import Shelf
shelf = Shelf(sys.argv[1])
with shelf.sole_builder(), shelf.building() as folder:
    (folder / "bundle").mkdir()
    (folder / "bundle" / "bundle.json").write_text("{}")
    print("building", flush=True)
    time.sleep(60)
"""


def test_a_build_that_is_killed_leaves_no_bundle_and_the_next_one_cleans_up(shelf: Shelf) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shelf.folder)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(list((shelf.folder / "building").iterdir())) == 1
    assert shelf.shelved() == []
    with shelf.sole_builder():
        assert list((shelf.folder / "building").iterdir()) == []


def test_a_build_that_fails_leaves_nothing(shelf: Shelf) -> None:
    def fail() -> None:
        with shelf.sole_builder(), shelf.building() as folder:
            (folder / "part").write_text("part")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((shelf.folder / "building").iterdir()) == []


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    script = """
        import sys
        from hbi_infer.catalog.shelf import Shelf
        from hbi_infer.errors import BundleError
        try:
            with Shelf(sys.argv[1]).sole_builder():
                pass
        except BundleError as error:
            print(error)
    """
    done = run_python(script, tmp_path / "closed" / "data", prefix=WITHOUT_ROOTS_RIGHTS)
    assert done.stdout == (
        f"cannot write the models' folder {tmp_path}/closed/data (Permission denied): free space or mend its "
        "permissions, or set XDG_DATA_HOME to another place\n"
    )
