"""Routes around the API: the page, the login, the OpenAPI document, metrics, and whether the service lives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from hbi_infer.serve.bodies import query_fields, read_login
from hbi_infer.serve.guard import MOST_QUERY_LETTERS, SESSION_SECONDS, cookie_name, login_address, page_query
from hbi_infer.serve.metrics import MEDIA_TYPE
from hbi_infer.serve.openapi import document
from hbi_infer.serve.problems import Problem, not_found
from hbi_infer.serve.service import service_of

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
LOGIN = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in - hbi-infer</title>
<link rel="stylesheet" href="/page/style.css">
</head>
<body>
<main class="login">
<h1>hbi-infer</h1>
<form method="post" action="{action}">
<p><label for="token">The token that was shown when the service started</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus></p>
<p role="alert">{message}</p>
<p><button type="submit">Log in</button></p>
</form>
</main>
</body>
</html>
"""


class _PageFile(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> Mapping[str, _PageFile]:
    """Returns the files of the page, by name: those of the package, and no others."""
    found = {}
    for file in files("hbi_infer.serve").joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get(f".{file.name.rpartition('.')[2]}")
        if media_type and file.is_file():
            content = file.read_bytes()
            found[file.name] = _PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


async def index(request: Request) -> Response:
    """Gives the page."""
    return _file(request, "index.html")


async def page_file(request: Request) -> Response:
    """Gives a file of the page."""
    return _file(request, request.path_params["name"])


def _file(request: Request, name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise not_found("file of the page called", name)
    headers = {"etag": file.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


async def login_form(request: Request) -> Response:
    """Shows the form for the token."""
    wanted = _wanted(request)
    if not service_of(request).sessions.needs_token:
        return _to_page(wanted)
    return _form(wanted)


async def login(request: Request) -> Response:
    """Begins a session for who knows the token."""
    service, wanted = service_of(request), _wanted(request)
    if not service.sessions.needs_token:
        return _to_page(wanted)
    try:
        is_right = service.sessions.is_token(await read_login(request, service.options.limits))
    except Problem as problem:
        if problem.status != 429:
            raise
        return _form(wanted, problem.detail, problem.status, problem.headers)
    if not is_right:
        return _form(wanted, "This is not the token.", 401)
    response = _to_page(wanted)
    response.set_cookie(
        cookie_name(service.options),
        service.sessions.begin(),
        max_age=SESSION_SECONDS,
        secure=service.options.is_secure,
        httponly=True,
        samesite="lax",
    )
    return response


def _wanted(request: Request) -> str:
    """Returns the query of the page that the login is for."""
    return page_query(query_fields(request, ("next",)).text("next", "", most=2 * MOST_QUERY_LETTERS))


def _to_page(query: str) -> Response:
    return RedirectResponse(f"/?{query}" if query else "/", status_code=303)


def _form(query: str, message: str = "", status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = LOGIN.format(action=escape(login_address(query)), message=escape(message))
    return HTMLResponse(text, status, headers=headers)


async def logout(request: Request) -> Response:
    """Ends a session."""
    service = service_of(request)
    name = cookie_name(service.options)
    service.sessions.end(request.cookies.get(name, ""))
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(name, secure=service.options.is_secure, httponly=True, samesite="lax")
    return response


async def live(_request: Request) -> Response:
    """Says that the service runs."""
    return PlainTextResponse("live\n")


async def openapi(request: Request) -> Response:
    """Gives the OpenAPI document."""
    query_fields(request, ())
    return JSONResponse(document())


async def metrics(request: Request) -> Response:
    """Gives the metrics as Prometheus takes them."""
    service = service_of(request)
    seconds = service.options.limits.request_seconds
    text = await service.searches.run(request, lambda _: service.metrics.text(), seconds=seconds)
    return Response(text, media_type=MEDIA_TYPE)


async def ready(request: Request) -> Response:
    """Says whether requests are answered."""
    is_ready = service_of(request).is_ready
    return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)
