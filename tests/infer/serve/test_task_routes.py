"""Answers, captions and explanations over the index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.builders.service import client_of, options
from tests.builders.tiny_bundle import write_tiny_bundle

MKV = "green then blue.mkv"


def clips_of(client: TestClient, video: dict[str, Any]) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/videos/{video['id']}").json()["clips"])


def test_a_question_is_answered(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    asked = {"question": "what colour is it?", "video": videos["red.mp4"]["id"], "top_k": 2}
    found = client.post("/v1/answer", json=asked).json()
    assert found["answers"][0]["answer"] == "red"
    assert [each["probability"] for each in found["answers"]] == sorted(
        (each["probability"] for each in found["answers"]), reverse=True
    )
    assert (found["confident"], found["unfamiliar"]) == (True, False)
    assert found["clip"] == clips_of(client, videos["red.mp4"])[0]["id"]


def test_each_clip_is_answered(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    asked = {"question": "what colour is it?", "video": videos[MKV]["id"], "all_clips": True}
    clips = client.post("/v1/answer", json=asked).json()["clips"]
    assert [clip["answers"][0]["answer"] for clip in clips] == ["green", "blue"]
    assert [clip["clip"] for clip in clips] == [clip["id"] for clip in clips_of(client, videos[MKV])]


def test_captions_of_a_video_and_of_a_clip(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    video = videos[MKV]["id"]
    captions = client.post("/v1/caption", json={"video": video}).json()["captions"]
    assert [each["caption"] for each in captions] == ["a green video", "a blue video"]
    one = client.post("/v1/caption", json={"video": video, "clip": captions[1]["clip"]}).json()["captions"]
    assert one == captions[1:]


def test_an_explanation_has_its_frames(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    clip = clips_of(client, videos[MKV])[1]["id"]
    asked = {"query": "a blue video", "video": videos[MKV]["id"]}
    best = client.post("/v1/explain", json=asked).json()
    assert (best["video"], best["clip"], best["clip_id"]) == (MKV, 2, clip)
    assert len(best["frames"]) == len(best["frame_seconds"]) > 0
    assert client.get(best["frames"][0]).headers["content-type"] == "image/jpeg"
    first = client.post("/v1/explain", json=asked | {"clip": clips_of(client, videos[MKV])[0]["id"]}).json()
    assert (first["clip"], first["score"] < best["score"]) == (1, True)


@pytest.mark.parametrize(
    ("route", "asked", "status", "said"),
    [
        ("answer", {"question": "it is red"}, 400, "is not a question"),
        ("answer", {"question": " "}, 400, "a question is empty"),
        ("answer", {"question": "what?", "top_k": 0}, 400, "from 1 to 50"),
        ("answer", {}, 400, "has no question"),
        ("caption", {"clip": "nothing"}, 400, "none of the video's"),
        ("caption", {"query": "red"}, 400, "no field 'query'"),
        ("explain", {"query": ""}, 400, "the query is empty"),
        ("explain", {"query": "red", "clip": "nothing"}, 400, "none of the video's"),
    ],
)
def test_what_cannot_be_asked(
    client: TestClient, videos: dict[str, dict[str, Any]], route: str, asked: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post(f"/v1/{route}", json={"video": videos["red.mp4"]["id"]} | asked)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


def test_a_video_that_there_is_not(client: TestClient) -> None:
    for route, asked in (("answer", {"question": "what?"}), ("caption", {}), ("explain", {"query": "red"})):
        assert client.post(f"/v1/{route}", json=asked | {"video": "nothing"}).status_code == 404
        assert client.post(f"/v1/{route}", json=asked).status_code == 400


@pytest.fixture(scope="module")
def searching_only(library: Path) -> Iterator[TestClient]:
    """A service whose model can only search."""
    bundle = str(write_tiny_bundle(library / "searching"))
    with client_of(options(library, bundles=(bundle,))) as client:
        yield client


def test_a_model_that_cannot(searching_only: TestClient) -> None:
    assert searching_only.get("/v1/collections").json()["collections"][0]["tasks"] == ["retrieve", "interaction"]
    [video, *_] = searching_only.get("/v1/videos").json()["videos"]
    for route, asked in (("answer", {"question": "what?"}), ("caption", {})):
        answer = searching_only.post(f"/v1/{route}", json=asked | {"video": video["id"]})
        assert (answer.status_code, answer.json()["type"]) == (501, "urn:hbi-infer:problem:model")
