"""Ids instead of paths, and files that lie where they should."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hbi_infer.serve.library import Library, clip_id, open_inside, shown_path
from hbi_infer.serve.problems import Problem
from tests.builders.service import client_of, options, write_library


@pytest.fixture
def served(client: TestClient) -> Library:
    return client.app.state.service.library  # type: ignore[attr-defined, no-any-return]


def test_ids_say_nothing_and_lead_back(served: Library) -> None:
    collection = served.collection(None)
    for video_id, entry in collection.videos().items():
        assert entry.path not in video_id
        video = served.video(video_id)
        assert video.entry.path == entry.path
        for clip in video.clips():
            found, same = served.clip(clip_id(video_id, clip.start_seconds))
            assert (found.id, same.start_seconds) == (video_id, clip.start_seconds)


@pytest.mark.parametrize(
    "given",
    ["", "x", "../../etc/passwd", "/etc/passwd", "red.mp4", "%2e%2e", "0" * 8 + "-" + "0" * 20, "\0", "é" * 300],
)
def test_what_is_no_id_is_not_found(served: Library, given: str) -> None:
    for look_up in (served.video, served.clip, served.collection):
        with pytest.raises(Problem) as caught:
            look_up(given)
        assert caught.value.status == 404
        assert len(caught.value.detail) < 200


def test_an_id_of_another_kind_is_not_found(served: Library) -> None:
    [video_id, *_] = served.collection(None).videos()
    with pytest.raises(Problem):
        served.video(f"{video_id}-0")
    for wrong in (video_id, f"{video_id}-17", f"{video_id}-00x"):
        with pytest.raises(Problem):
            served.clip(wrong)


def num_open() -> int:
    """Number of descriptors that are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_only_files_of_the_folder_are_opened(tmp_path: Path) -> None:
    folder, secret = tmp_path / "folder", tmp_path / "secret.txt"
    folder.mkdir()
    secret.write_text("secret")
    (folder / "a.mp4").write_text("video")
    (folder / "inner.mp4").symlink_to("a.mp4")
    (folder / "outer.mp4").symlink_to(secret)
    (folder / "parent").symlink_to(tmp_path)
    (folder / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(folder / "pipe.mp4")
    for name in ("a.mp4", "inner.mp4"):
        descriptor = open_inside(folder, name)
        assert os.read(descriptor, 10) == b"video"
        os.close(descriptor)
    for name, status in (
        ("outer.mp4", 403),
        ("parent/secret.txt", 403),
        ("../secret.txt", 403),
        (str(secret), 403),
        ("loop.mp4", 404),
        ("pipe.mp4", 404),
        ("none.mp4", 404),
        ("", 404),
        ("a\0b", 404),
    ):
        before = num_open()
        with pytest.raises(Problem) as caught:
            open_inside(folder, name)
        assert caught.value.status == status, name
        assert str(tmp_path) not in caught.value.detail.replace(str(secret), "")
        assert num_open() == before, "no descriptor stays open"


def test_names_that_are_no_text() -> None:
    assert shown_path(os.fsdecode(b"a\xff.mp4")) == "a\ufffd.mp4"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[TestClient]:
    """A service that a test may do anything to."""
    with client_of(options(write_library(tmp_path))) as client:
        yield client


def test_an_index_that_another_process_makes_anew_is_opened_anew(own: TestClient, tmp_path: Path) -> None:
    from hbi_infer.api import HBI, Index

    collection = own.app.state.service.library.collection(None)  # type: ignore[attr-defined]
    assert len(own.get("/v1/videos").json()["videos"]) == 3
    (tmp_path / "videos" / "red.mp4").unlink()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{collection.location}{suffix}").unlink(missing_ok=True)
    with Index.open(tmp_path / "videos", HBI.load(tmp_path / "bundle"), location=collection.location) as index:
        index.update(workers=1)
    assert [video["path"] for video in own.get("/v1/videos").json()["videos"]] == [
        "green then blue.mkv",
        "more/blue.mp4",
    ]


def test_a_damaged_index_is_a_problem_and_the_service_goes_on(own: TestClient) -> None:
    collection = own.app.state.service.library.collection(None)  # type: ignore[attr-defined]
    own.post("/v1/search", json={"query": "red"})
    content = bytearray(collection.location.read_bytes())
    with collection.location.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (len(content) - 100))
    Path(f"{collection.location}-wal").write_bytes(b"")
    answers = [own.get("/v1/videos"), own.post("/v1/search", json={"query": "red", "filter": {"folder": "more"}})]
    assert (answers[0].status_code, answers[1].status_code in (200, 503)) == (503, True), "some of it is in memory"
    assert answers[0].json()["type"] == "urn:hbi-infer:problem:index"
    assert str(collection.location.parent) not in answers[0].json()["detail"]
    assert own.get("/health/live").status_code == 200


def test_a_folder_that_vanishes(own: TestClient, tmp_path: Path) -> None:
    [video, *_] = own.get("/v1/videos").json()["videos"]
    (tmp_path / "videos").rename(tmp_path / "elsewhere")
    answer = own.get(video["stream"])
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:hbi-infer:problem:gone")
    assert own.post("/v1/search", json={"query": "red"}).json()["results"]
    own.post("/v1/index", json={"action": "start"})
    own.app.state.service.indexers[own.get("/v1/collections").json()["collections"][0]["id"]].wait(20)  # type: ignore[attr-defined]
    assert "cannot read the folder" in own.get("/v1/index").json()["error"]
    (tmp_path / "elsewhere").rename(tmp_path / "videos")
    assert own.get(video["stream"]).status_code == 200
