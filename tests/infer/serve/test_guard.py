"""Who may come in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hbi_infer.serve.guard import MOST_FAILURES, MOST_SESSIONS, Sessions
from hbi_infer.serve.problems import Problem
from tests.builders.service import client_of, options

TOKEN = "a-token-of-many-letters"


@pytest.fixture(scope="module")
def guarded(library: Path) -> Iterator[TestClient]:
    """A service that is open to other machines, for who has the token."""
    with client_of(options(library, host="0.0.0.0", token=TOKEN, names=("videos.local",), update=False)) as client:
        yield client


@pytest.fixture
def stranger(guarded: TestClient) -> TestClient:
    guarded.cookies.clear()
    return guarded


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "192.168.1.5", "127.0.0.1.nip.io", "", "a@127.0.0.1", "[::1", "x/y"],
)
def test_another_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/v1/collections", headers={"host": host})
    assert (answer.status_code, answer.json()["type"]) == (421, "urn:hbi-infer:problem:host")


@pytest.mark.parametrize(
    "host", ["localhost:1234", "127.0.0.1", "LOCALHOST", "[::1]:8000", "127.0.0.9:80", "localhost."]
)
def test_names_of_this_machine_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/v1/collections", headers={"host": host}).status_code == 200


def test_names_of_a_service_for_other_machines(stranger: TestClient) -> None:
    for host, status in (("192.168.1.5:8000", 401), ("videos.local", 401), ("evil.example", 421)):
        assert stranger.get("/v1/collections", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8001"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
def test_another_site_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/v1/collections", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:hbi-infer:problem:origin")


def test_a_link_on_another_site_leads_to_the_page(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/v1/search", json={"query": "red"}, headers={"origin": "http://127.0.0.1:8000"}).is_success


def test_two_headers_of_one_name(client: TestClient) -> None:
    answer = client.get("/v1/collections", headers=[("host", "127.0.0.1"), ("host", "evil.example")])  # type: ignore[arg-type]
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x": "a" * 33_000}, 431),
        ({"content-length": str(2**40)}, 413),
        ({"content-length": "9" * 30}, 413),
        ({"content-length": "4", "transfer-encoding": "chunked"}, 400),
    ],
)
def test_a_request_that_says_too_much_of_itself(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.get("/v1/collections", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_headers_of_every_answer(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nothing"), client.get("/", headers={"host": "evil.example"})):
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_a_token_is_needed(stranger: TestClient) -> None:
    for path in ("/v1/collections", "/v1/videos", "/v1/index/events", "/metrics", "/v1/openapi.json", "/nothing"):
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
        assert stranger.get("/v1/collections", headers={"authorization": header}).status_code == 401
    assert stranger.get("/v1/collections", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert stranger.get("/health/live").text == "live\n"
    assert stranger.get("/", follow_redirects=False).headers["location"] == "/login"


def test_a_cookie_is_as_good(stranger: TestClient) -> None:
    assert stranger.post("/login", data={"token": TOKEN}, follow_redirects=False).status_code == 303
    assert stranger.get("/v1/collections").status_code == 200
    for wrong in ("", "x", TOKEN):
        stranger.cookies.clear()
        stranger.cookies.set("hbi-8000", wrong)
        assert stranger.get("/v1/collections").status_code == 401


def test_guessing_is_slow() -> None:
    sessions = Sessions(TOKEN)
    for number in range(MOST_FAILURES):
        assert not sessions.is_token(f"wrong {number}")
    with pytest.raises(Problem, match="wrong tokens") as caught:
        sessions.is_token(TOKEN)
    assert caught.value.status == 429
    assert int(caught.value.headers["retry-after"]) <= 61


def test_sessions_are_bounded_and_end() -> None:
    sessions = Sessions(TOKEN)
    first = sessions.begin()
    last = [sessions.begin() for _ in range(MOST_SESSIONS)][-1]
    assert (sessions.has(first), sessions.has(last)) == (False, True)
    sessions.end(last)
    assert not sessions.has(last)
