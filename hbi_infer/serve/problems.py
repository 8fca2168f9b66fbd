"""Problem documents (RFC 9457): what a client is told when a request cannot be answered."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hbi_infer.errors import BundleError, EngineError, HBIError, IndexStoreError, InputError, VideoError

KIND_PREFIX = "urn:hbi-infer:problem:"
MEDIA_TYPE = "application/problem+json"
CLIENT_GONE = 499
"""Status in the metrics of a request whose client went away; nobody receives it."""

_LOG = logging.getLogger("hbi_infer.serve")
_OF_ERRORS: tuple[tuple[type[HBIError], int, str, str], ...] = (
    (VideoError, 422, "video", "The file cannot be read"),
    (InputError, 400, "input", "The request cannot be used"),
    (IndexStoreError, 503, "index", "The index cannot be used"),
    (BundleError, 501, "model", "The model cannot do this"),
    (EngineError, 500, "engine", "The model failed"),
)


class Problem(Exception):  # noqa: N818 - the name that the RFC gives it
    """A request that cannot be answered.

    Args:
        status: Status of HTTP.
        kind: Kind of problem, the end of its type.
        title: Short name of the kind.
        detail: Description: the thing given, the thing expected, and the way out.
        headers: Further headers.
    """

    def __init__(
        self, status: int, kind: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """Returns the document for JSON."""
        return {"type": KIND_PREFIX + self.kind, "title": self.title, "status": self.status, "detail": self.detail}

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Returns the document as a response, with further headers if any are given."""
        content = json.dumps(self.document()).encode()
        headers = {"cache-control": "no-store"} | self.headers | dict(headers or {})
        return Response(content, self.status, headers=headers, media_type=MEDIA_TYPE)


def bad_input(detail: str) -> Problem:
    """Returns the problem of a request that cannot be used."""
    return Problem(400, "input", "The request cannot be used", detail)


def not_found(what: str, given: str) -> Problem:
    """Returns the problem of an id that means nothing here."""
    return Problem(
        404, "not-found", "Not found", f"there is no {what} {_shown(given)}: take an id from a list or search"
    )


def too_large(what: str, most: str) -> Problem:
    """Returns the problem of a body that is too large."""
    return Problem(413, "too-large", "The request is too large", f"{what}; at most {most} are taken")


def busy(what: str, retry_seconds: int = 1) -> Problem:
    """Returns the problem of a queue that is full."""
    detail = f"too many {what} wait already: try again in {retry_seconds} s"
    return Problem(503, "busy", "Busy", detail, {"retry-after": str(retry_seconds)})


def too_slow(seconds: float) -> Problem:
    """Returns the problem of a request that took too long."""
    return Problem(504, "too-slow", "Too slow", f"it took longer than {seconds:g} s and was given up: ask for less")


def of_error(error: HBIError, shown: Callable[[str], str] = str) -> Problem:
    """Returns the problem that an error of ours is.

    Args:
        error: The error.
        shown: Makes its message fit to be sent, without paths of this machine.
    """
    for kind, status, name, title in _OF_ERRORS:
        if isinstance(error, kind):
            return Problem(status, name, title, shown(str(error)))
    return Problem(500, "error", "The request failed", shown(str(error)))


def handlers(shown: Callable[[str], str]) -> dict[Any, Callable[[Request, Exception], Response]]:
    """Returns what Starlette does with exceptions.

    Args:
        shown: Makes the message of an error fit to be sent.
    """

    def on_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HBIError)
        return of_error(error, shown).response()

    return {
        Problem: _on_problem,
        HBIError: on_error,
        HTTPException: _on_http,
        ClientDisconnect: lambda _request, _error: Response(status_code=CLIENT_GONE),
        Exception: _on_bug,
    }


def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    name = HTTPStatus(error.status_code).phrase
    details = {
        404: f"there is nothing at {_shown(request.url.path)}: /v1/openapi.json lists what there is",
        405: f"{request.method} is not for {_shown(request.url.path)}: /v1/openapi.json says what is",
        413: "the body is larger than what is taken: send less",
    }
    detail = details.get(error.status_code, str(error.detail))
    return Problem(error.status_code, name.lower().replace(" ", "-"), name, detail, error.headers).response()


def _on_bug(request: Request, error: Exception) -> Response:
    _LOG.error("a bug at %s %s", request.method, request.scope.get("route_path", "?"), exc_info=error)
    return Problem(500, "bug", "A bug", "the service has a bug here; its log says more").response()


def _shown(given: str) -> str:
    return repr(given if len(given) <= 80 else f"{given[:80]}...")
