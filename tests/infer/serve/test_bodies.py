"""Bodies of requests within their limits."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b'{"query": "' + b"a" * 2**20 + b'"}', "application/json", 413, "at most 256 KiB"),
        (b'{"query": "red"}', "text/plain", 415, "send application/json"),
        (b"[1]", "application/json", 400, "a JSON list; send an object"),
        (b'{"query": ', "application/json", 400, "no JSON"),
        (b'{"min_match": NaN}', "application/json", 400, "NaN is no number"),
        (b"[" * 100_000, "application/json", 400, "no JSON"),
        (b"\xff\xfe", "application/json", 400, "no JSON"),
        (b"--x--", "multipart/form-data", 400, "form cannot be read"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 400, "form"),
    ],
)
def test_a_body_that_cannot_be_used(client: TestClient, content: bytes, kind: str, status: int, said: str) -> None:
    answer = client.post("/v1/search", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_a_form_has_one_picture_and_options(client: TestClient) -> None:
    answer = client.post("/v1/search", files={"other": b"x"})
    assert "no file picture" in answer.json()["detail"]
    answer = client.post("/v1/search", files=[("picture", b"x"), ("picture", b"y")])
    assert answer.status_code == 400
    answer = client.post("/v1/search", files={"picture": b"x"}, data={"options": json.dumps({"query": "red"})})
    assert "give one of" in answer.json()["detail"]


def test_a_field_of_the_address_that_is_given_twice(client: TestClient) -> None:
    answer = client.get("/v1/videos?limit=1&limit=2")
    assert (answer.status_code, "twice" in answer.json()["detail"]) == (400, True)
    assert "did you mean limit" in client.get("/v1/videos?limits=1").json()["detail"]
