"""What a client is told when a request cannot be answered."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from hbi_infer import errors
from hbi_infer.serve.problems import Problem, busy, handlers, of_error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.VideoError("x is damaged"), 422, "video"),
        (errors.InputError("x is wrong"), 400, "input"),
        (errors.IndexStoreError("x is damaged"), 503, "index"),
        (errors.BundleError("x cannot"), 501, "model"),
        (errors.EngineError("x failed"), 500, "engine"),
        (errors.DataError("x"), 500, "error"),
    ],
)
def test_errors_of_ours(error: errors.HBIError, status: int, kind: str) -> None:
    problem = of_error(error, lambda message: message.replace("x", "it"))
    assert problem.document()["type"] == f"urn:hbi-infer:problem:{kind}"
    assert (problem.status, problem.detail) == (status, str(error).replace("x", "it"))


def test_a_document_is_what_the_rfc_says() -> None:
    response = busy("searches", 7).response()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "7"
    document = json.loads(bytes(response.body))
    assert document.keys() == {"type", "title", "status", "detail"}
    assert document["status"] == response.status_code == 503


def test_what_a_route_raises() -> None:
    raised: dict[str, Exception] = {
        "problem": Problem(418, "teapot", "A teapot", "short and stout"),
        "error": errors.InputError("secret place"),
        "http": HTTPException(401, "no"),
        "bug": ZeroDivisionError("secret place"),
    }

    async def route(request: Request) -> Response:
        raise raised[request.path_params["name"]]

    app = Starlette(
        routes=[Route("/{name}", route)], exception_handlers=handlers(lambda text: text.replace("secret", "some"))
    )
    client = TestClient(app, raise_server_exceptions=False)
    answers = {name: client.get(f"/{name}") for name in raised}
    assert [answer.status_code for answer in answers.values()] == [418, 400, 401, 500]
    assert "secret" not in "".join(answer.text for answer in answers.values())
    assert all(answer.json()["status"] == answer.status_code for answer in answers.values())
