"""The OpenAPI document: it has every route, and the service answers its examples as it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from hbi_infer.serve.app import routes
from hbi_infer.serve.openapi import document

PAGES = ("/", "/page/{name}", "/login", "/logout")


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, what) for path, methods in document()["paths"].items() for method, what in methods.items()]


def check(answer: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator({**schema, "components": document()["components"]}).validate(answer)


def test_it_has_every_route_and_no_other() -> None:
    served = {
        (route.path, method.lower())
        for route in routes()
        for method in route.methods or ()
        if route.path not in PAGES and method != "HEAD"
    }
    assert {(path, method) for path, method, _ in operations()} == served


def test_it_can_be_read_without_this_program(client: TestClient) -> None:
    found = client.get("/v1/openapi.json").json()
    assert found == json.loads(json.dumps(document()))
    references = set(_references(found))
    assert references
    for reference in references:
        place = found
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [each for child in value.values() for each in _references(child)]
    return [each for child in value for each in _references(child)] if isinstance(value, list) else []


POSTS = [(path, what) for path, method, what in operations() if method == "post"]


@pytest.mark.parametrize(("path", "what"), POSTS, ids=[path for path, _ in POSTS])
def test_an_example_is_answered_as_it_says(
    client: TestClient, videos: dict[str, dict[str, Any]], path: str, what: dict[str, Any]
) -> None:
    body = what["requestBody"]["content"]["application/json"]
    example = json.loads(json.dumps(body["example"]).replace("VIDEO", videos["red.mp4"]["id"]))
    check(example, body["schema"])
    answer = client.post(path, json=example)
    [status] = what["responses"].keys() - {"default"}
    assert answer.status_code == int(status), answer.text
    check(answer.json(), what["responses"][status]["content"]["application/json"]["schema"])


def test_lists_are_what_it_says(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    for path, method, what in operations():
        content = what["responses"].get("200", {}).get("content", {})
        if method == "get" and "application/json" in content and path != "/v1/openapi.json":
            answer = client.get(path.replace("{id}", videos["red.mp4"]["id"]))
            check(answer.json(), content["application/json"]["schema"])
    check(client.get("/nothing").json(), document()["components"]["schemas"]["Problem"])
