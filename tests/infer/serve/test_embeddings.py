"""Vectors in the shape of OpenAI's API."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hbi_infer.api import HBI
from tests.builders.tiny_bundle import COLOURS


def data_url(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (30, 30), COLOURS[colour]).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def vectors(client: TestClient, given: Any, **more: Any) -> list[Any]:
    answer = client.post("/v1/embeddings", json={"input": given} | more)
    assert answer.status_code == 200, answer.text
    return [each["embedding"] for each in answer.json()["data"]]


def test_a_text_has_the_vector_of_the_model(client: TestClient, library: Path) -> None:
    model = HBI.load(library / "bundle", device="cpu", threads=1)
    expected = model.scoring.pooled(model.encode_text(["red", "a blue video"]))
    np.testing.assert_allclose(vectors(client, ["red", "a blue video"]), expected, atol=1e-6)
    [one] = vectors(client, "red", encoding_format="base64", model="tiny")
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(one), "<f4"), expected[0], atol=1e-6)


def test_a_picture_is_near_to_what_it_shows(client: TestClient) -> None:
    red, picture, blue = map(np.array, vectors(client, ["red", data_url("red"), "blue"]))
    assert red @ picture > 0.9 > blue @ picture


def test_the_shape_is_that_of_openai(client: TestClient) -> None:
    document = client.post("/v1/embeddings", json={"input": "red", "model": "tiny", "user": "me"}).json()
    assert (document["object"], document["model"]) == ("list", "tiny")
    assert document["data"][0].keys() == {"object", "index", "embedding"}
    assert document["usage"]["total_tokens"] >= 3
    assert "weighted mean" in document["pooling"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400), ({"input": []}, 400), ({"input": " "}, 400), ({"input": [1]}, 400), ({"input": "a" * 3000}, 400),
        ({"input": "red", "model": "ada"}, 404), ({"input": "red", "dimensions": 3}, 400),
        ({"input": "data:image/png,x"}, 400), ({"input": "data:image/png;base64,!!"}, 400),
        ({"input": "data:image/png;base64,aGVsbG8="}, 422), ({"input": ["data:image/png;base64,"] * 5}, 400),
    ],
)  # fmt: skip
def test_what_has_no_vector(client: TestClient, asked: dict[str, Any], status: int) -> None:
    answer = client.post("/v1/embeddings", json=asked)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
