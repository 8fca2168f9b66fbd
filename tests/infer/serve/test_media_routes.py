"""Videos by ranges and pictures of clips."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient


def first_clip(client: TestClient, video: dict[str, Any]) -> str:
    return str(client.get(f"/v1/videos/{video['id']}").json()["clips"][0]["id"])


def test_a_video_is_given_byte_by_byte(client: TestClient, videos: dict[str, dict[str, Any]], library: Path) -> None:
    video = videos["red.mp4"]
    content = (library / "videos" / "red.mp4").read_bytes()
    whole = client.get(video["stream"])
    assert (whole.content, whole.headers["content-type"]) == (content, "video/mp4")
    part = client.get(video["stream"], headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    beyond = client.get(video["stream"], headers={"range": f"bytes={len(content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert beyond.headers["content-type"] == "application/problem+json"


def test_a_picture_shows_the_frame_at_a_time(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    found = client.get(f"/v1/videos/{videos['green then blue.mkv']['id']}").json()
    for clip, seconds, channel in zip(found["clips"], (1.0, 3.0), (1, 2), strict=True):
        answer = client.get(f"/v1/clips/{clip['id']}/thumbnail?at={seconds}&width=160")
        assert answer.headers["content-type"] == "image/jpeg"
        picture = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert picture.shape == (120, 160, 3)
        assert picture.mean(axis=(0, 1)).argmax() == channel


def test_a_picture_is_made_once(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    address = f"/v1/clips/{first_clip(client, videos['red.mp4'])}/thumbnail?at=0.5&width=200"
    first = client.get(address)
    assert first.headers["cache-control"].startswith("private")
    again = client.get(address, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address).content == first.content


@pytest.mark.parametrize(
    "query", ["at=-1", "at=nan", "at=900", "width=0", "width=99999", "at=1&at=1", "path=/etc/passwd"]
)
def test_a_picture_that_there_is_not(client: TestClient, videos: dict[str, dict[str, Any]], query: str) -> None:
    answer = client.get(f"/v1/clips/{first_clip(client, videos['red.mp4'])}/thumbnail?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_clip_that_there_is_not(client: TestClient) -> None:
    assert client.get("/v1/clips/nothing/thumbnail").status_code == 404
    assert client.get("/v1/videos/nothing/stream").status_code == 404


def test_what_no_browser_plays_is_converted(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    address = videos["green then blue.mkv"]["stream"] + "?format=mp4"
    part = client.get(address, headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, b"ftyp", "video/mp4")
    assert client.get(videos["red.mp4"]["stream"] + "?format=avi").status_code == 400


def test_a_moment_is_downloaded(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    clips = client.get(f"/v1/videos/{videos['green then blue.mkv']['id']}").json()["clips"]
    answer = client.get(f"/v1/clips/{clips[1]['id']}/moment")
    assert answer.content[4:8] == b"ftyp"
    named = "attachment; filename*=UTF-8''green%20then%20blue%202.0-4.0%20s.mp4"
    assert answer.headers["content-disposition"] == named
    assert client.get("/v1/clips/nothing/moment").status_code == 404
