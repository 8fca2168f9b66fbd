"""The application as a whole: every route answers, and what it answers says no place of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hbi_infer.errors import InputError
from hbi_infer.serve.app import build_app
from tests.builders.service import options


def test_collections_say_what_is_served(client: TestClient, library: Path) -> None:
    [served] = client.get("/v1/collections").json()["collections"]
    assert (served["name"], served["clips"], served["videos"]) == ("videos", 4, 3)
    assert served["model"]["name"] == "tiny"
    assert set(served["tasks"]) == {"retrieve", "qa", "caption", "interaction"}
    assert served["clip_seconds"] == 2.0


def test_no_answer_names_a_place_of_this_machine(client: TestClient, library: Path) -> None:
    answers = [client.get(path).text for path in ("/v1/collections", "/v1/videos", "/v1/failures", "/v1/index", "/")]
    answers.append(client.post("/v1/search", json={"query": "red"}).text)
    assert not [answer for answer in answers if str(library) in answer]


def test_what_is_not_there_is_a_problem(client: TestClient) -> None:
    for path, method, status in (("/nothing", "GET", 404), ("/v1/videos/", "GET", 404), ("/v1/search", "GET", 405)):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status


def test_a_body_beyond_all_limits(client: TestClient) -> None:
    answer = client.post("/v1/search", content=b"x" * (33 * 2**20), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_folder_that_is_not_there(library: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        build_app(options(library, videos=(tmp_path / "none",)))
