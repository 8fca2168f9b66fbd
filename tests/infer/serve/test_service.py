"""A service that starts, is crowded, and ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.testclient import TestClient

from hbi_infer.serve.settings import Limits
from tests.builders.service import client_of, options


def test_searches_that_come_together_are_answered_alike(client: TestClient) -> None:
    queries = ["red", "green", "blue", "a red video"] * 5
    alone = {query: client.post("/v1/search", json={"query": query}).json() for query in set(queries)}
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda query: client.post("/v1/search", json={"query": query}).json(), queries))
    for query, answer in zip(queries, together, strict=True):
        assert [result["clip"] for result in answer["results"]] == [
            result["clip"] for result in alone[query]["results"]
        ]


def test_what_is_too_much_is_refused_and_the_rest_answered(library: Path) -> None:
    limits = Limits(threads=1, waiting=1)
    with client_of(options(library, limits=limits, update=False)) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/search", json={"query": "red"}), range(48)))
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert any(answer.status_code == 200 for answer in answers)
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
        assert client.post("/v1/search", json={"query": "red"}).status_code == 200


def test_two_folders_side_by_side(library: Path) -> None:
    more = library / "videos" / "more"
    with client_of(options(library, videos=(library / "videos", more))) as client:
        both = client.get("/v1/collections").json()["collections"]
        assert [(each["name"], each["videos"]) for each in both] == [("videos", 3), ("more", 1)]
        found = client.post("/v1/search", json={"query": "red", "collection": both[1]["id"]}).json()["results"]
        assert [result["path"] for result in found] == ["blue.mp4"]
        assert client.get(found[0]["stream"]).status_code == 200
        like = client.post("/v1/search", json={"like_clip": found[0]["clip"], "collection": both[0]["id"]}).json()
        assert "more/blue.mp4" in str(like)
