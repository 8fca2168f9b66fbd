"""Lists of collections, videos and failures."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient


def test_videos_are_listed_in_pages(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    assert list(videos) == ["green then blue.mkv", "more/blue.mp4", "red.mp4"]
    page = client.get("/v1/videos?offset=1&limit=1").json()
    assert ([video["path"] for video in page["videos"]], page["total"]) == (["more/blue.mp4"], 3)
    assert client.get("/v1/videos?q=BLUE").json()["total"] == 2
    assert client.get("/v1/videos?offset=9").json() == {"videos": [], "total": 3}


def test_a_video_has_its_clips(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    given = videos["green then blue.mkv"]
    assert (given["clips"], given["duration_seconds"]) == (2, 4.0)
    found = client.get(f"/v1/videos/{given['id']}").json()
    assert [(clip["start_seconds"], clip["end_seconds"]) for clip in found["clips"]] == [(0.0, 2.0), (2.0, 4.0)]
    assert found["path"] == "green then blue.mkv"


def test_a_video_has_a_picture_from_its_middle(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    assert "-2000/thumbnail?at=3.0" in videos["green then blue.mkv"]["thumbnail"]
    assert client.get(videos["green then blue.mkv"]["thumbnail"]).headers["content-type"] == "image/jpeg"


def test_failures_have_reasons(client: TestClient) -> None:
    [failure] = client.get("/v1/failures").json()["failures"]
    assert failure["path"] == "damaged.mp4"
    assert failure["reason"]


def test_ids_and_numbers_that_mean_nothing(client: TestClient) -> None:
    assert client.get("/v1/videos/nothing").status_code == 404
    assert client.get("/v1/videos?collection=nothing").status_code == 404
    for query in ("offset=-1", "limit=0", "limit=501", "limit=x", "limit=1.5"):
        assert client.get(f"/v1/videos?{query}").status_code == 400
