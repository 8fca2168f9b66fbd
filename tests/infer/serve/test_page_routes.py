"""The files of the page, the login, and whether the service lives."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest
from starlette.testclient import TestClient

from hbi_infer.serve.page_routes import page_files
from tests.builders.service import client_of, options

TOKEN = "another-token-of-many-letters"


@pytest.fixture(scope="module")
def guarded(library: Path) -> Iterator[TestClient]:
    given = options(library, token=TOKEN, update=False)
    with client_of(given) as client:
        yield client


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == page_files()["index.html"].content
    for name, file in page_files().items():
        answer = client.get(f"/page/{name}")
        assert (answer.content, answer.headers["content-type"]) == (file.content, file.media_type)
        again = client.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    ["../app.py", "..%2fapp.py", "%2e%2e%2fapp.py", "__init__.py", "", "none.js", "%00", "index.html%00.js"],
)
def test_nothing_else_is_a_file_of_the_page(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_login_and_logout(guarded: TestClient) -> None:
    form = guarded.get("/login")
    assert 'type="password"' in form.text
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    done = guarded.post("/login", data={"token": f" {TOKEN} "}, follow_redirects=False)
    cookie = done.headers["set-cookie"].lower()
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert all(part in cookie for part in ("httponly", "samesite=lax", "path=/"))
    assert TOKEN not in cookie
    assert guarded.get("/v1/collections").status_code == 200
    old = dict(guarded.cookies)
    guarded.post("/logout", follow_redirects=False)
    guarded.cookies.update(old)
    assert guarded.get("/v1/collections").status_code == 401, "the session has ended, whatever the browser keeps"
    guarded.cookies.clear()


@pytest.mark.parametrize(
    "wanted", ["q=two+rings&video=1", "q=%22%3E%3Cscript%3E&q=2", "q=%0D%0ALocation%3A+x", "q=//other.example/"]
)
def test_a_login_leads_to_the_page_that_was_asked_for_and_nowhere_else(guarded: TestClient, wanted: str) -> None:
    login = guarded.get(f"/?{wanted}", follow_redirects=False).headers["location"]
    form = guarded.get(login).text
    action = unescape(form.partition('action="')[2].partition('"')[0])
    assert (action, form.count("<script")) == (login, 0)
    done = guarded.post(action, data={"token": TOKEN}, follow_redirects=False)
    assert parse_qsl(done.headers["location"].removeprefix("/?")) == parse_qsl(wanted)
    guarded.cookies.clear()


@pytest.mark.parametrize("given", ["//other.example/", "https://other.example/", "\\\\other.example", "a" * 5000])
def test_a_login_forgets_what_is_no_query_of_the_page(guarded: TestClient, given: str) -> None:
    done = guarded.post(f"/login?{urlencode({'next': given})}", data={"token": TOKEN}, follow_redirects=False)
    assert done.headers["location"] == "/"
    guarded.cookies.clear()


def test_a_cookie_over_tls_is_for_tls_alone(library: Path) -> None:
    given = options(library, token=TOKEN, update=False, certificate=Path("c.pem"), key=Path("k.pem"))
    with client_of(given, "https://127.0.0.1:8000") as client:
        cookie = client.post("/login", data={"token": TOKEN}, follow_redirects=False).headers["set-cookie"]
        assert cookie.startswith("__Host-hbi=")
        assert "Secure" in cookie
        assert client.get("/").headers["strict-transport-security"]


def test_a_form_that_is_none(guarded: TestClient) -> None:
    assert guarded.post("/login", json={"token": TOKEN}).status_code == 415
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert guarded.post("/login", content=b"a" * 5000, headers=kind).status_code == 413


def test_without_a_token_there_is_no_login(client: TestClient) -> None:
    for answer in (client.get("/login", follow_redirects=False), client.post("/login", follow_redirects=False)):
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_it_lives_and_is_ready(client: TestClient) -> None:
    assert (client.get("/health/live").text, client.get("/health/ready").text) == ("live\n", "ready\n")
