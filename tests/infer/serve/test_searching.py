"""Searches: what is found, in pages, with filters."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient


def search(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_best_comes_first_with_all_that_a_page_needs(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    found = search(client, query="blue", top_k=3)
    assert found["query"] == "blue"
    best = found["results"][0]
    assert best["path"] in ("more/blue.mp4", "green then blue.mkv")
    assert best["video"] == videos[best["path"]]["id"]
    assert best["start_seconds"] <= best["best_seconds"] <= best["end_seconds"]
    assert client.get(best["thumbnail"]).status_code == 200
    clips = client.get(f"/v1/videos/{best['video']}").json()["clips"]
    assert best["clip"] in [clip["id"] for clip in clips]


def test_copies_are_folded(client: TestClient) -> None:
    found = search(client, query="blue")
    with_copies = [result for result in found["results"] if result["copies"]]
    for result in with_copies:
        assert all(copy["video"] != result["video"] and copy["clip"] for copy in result["copies"])
    assert len(search(client, query="blue", dedupe="off")["results"]) >= len(found["results"])


def test_pages_together_are_one_list(client: TestClient) -> None:
    whole = search(client, query="red", all_clips=True, dedupe="off")["results"]
    pages, offset = [], 0
    while offset is not None:
        page = search(client, query="red", all_clips=True, dedupe="off", top_k=1, offset=offset)
        pages += page["results"]
        offset = page["next_offset"]
    assert [(each["rank"], each["clip"]) for each in pages] == [(each["rank"], each["clip"]) for each in whole]
    assert len(whole) == 4
    assert search(client, query="red", offset=99)["results"] == []


def test_poor_matches_are_left_out_and_counted(client: TestClient) -> None:
    everything = search(client, query="red", dedupe="off")
    least = sorted(result["match"] for result in everything["results"])[-1]
    some = search(client, query="red", dedupe="off", min_match=least)
    assert len(some["results"]) + some["left_out"] == len(everything["results"])
    assert some["left_out"] > 0


def test_filters(client: TestClient) -> None:
    assert [each["path"] for each in search(client, query="red", filter={"folder": "more"})["results"]] == [
        "more/blue.mp4"
    ]
    assert search(client, query="red", filter={"min_seconds": 100})["results"] == []
    assert search(client, query="red", filter={"newer_than": "2200-01-01"})["results"] == []
    assert len(search(client, query="red", filter={"path_glob": "*.mkv"})["results"]) == 1


def test_several_sentences_and_what_must_not_be_there(client: TestClient) -> None:
    found = search(client, query=["green", "a video"], without=["red"], dedupe="off")
    assert found["query"] == ["green", "a video"]
    assert found["results"][0]["path"] == "green then blue.mkv"


def test_more_like_a_clip(client: TestClient) -> None:
    best = search(client, query="blue", dedupe="off")["results"][0]
    like = search(client, like_clip=best["clip"], dedupe="off")["results"]
    assert best["video"] not in [result["video"] for result in like]
    assert "blue" in like[0]["path"]
    assert like[0]["match"] is None


def test_a_long_sentence_is_noted(client: TestClient) -> None:
    [note] = search(client, query="a red video then a blue video then a green video")["notes"]
    assert "cut at word" in note


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "give one of query, like_clip and a picture"),
        ({"query": ""}, "a query is empty"),
        ({"query": ["red", " "]}, "a query is empty"),
        ({"query": "red", "like_clip": "x"}, "give one of"),
        ({"query": "a" * 2001}, "give at most 2000"),
        ({"query": ["red"] * 17}, "give at most 16"),
        ({"query": "red", "top_k": 201}, "from 1 to 200"),
        ({"query": "red", "without": [""]}, "without is empty"),
        ({"query": "red", "filter": {"path": "x"}}, "filter has no field 'path'"),
    ],
)
def test_what_cannot_be_searched_for(client: TestClient, asked: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, said in answer.json()["detail"]) == (400, True), answer.text


def test_a_clip_that_there_is_not(client: TestClient) -> None:
    assert client.post("/v1/search", json={"like_clip": "nothing"}).status_code == 404
    assert client.post("/v1/search", json={"query": "red", "collection": "nothing"}).status_code == 404
