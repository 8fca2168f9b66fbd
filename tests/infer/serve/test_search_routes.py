"""Searching with a picture of one's own."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.builders.tiny_bundle import COLOURS


def picture(colour: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), COLOURS[colour]).save(file, kind)
    return file.getvalue()


def search(client: TestClient, content: bytes, name: str = "a.png", **data: Any) -> Any:
    return client.post("/v1/search", files={"picture": (name, content)}, data=data)


def bomb() -> bytes:
    """A PNG of a few bytes that says that it has 900 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_what_looks_like_a_picture_is_found(client: TestClient) -> None:
    answer = search(client, picture("red"), options='{"top_k": 1}')
    assert answer.status_code == 200, answer.text
    assert [result["path"] for result in answer.json()["results"]] == ["red.mp4"]


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", bomb()], ids=["empty", "text", "cut", "bomb"]
)
def test_what_is_no_picture(client: TestClient, content: bytes) -> None:
    answer = search(client, content, "../../etc/passwd")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:hbi-infer:problem:video")
    assert "give a JPEG, PNG or WebP picture" in answer.json()["detail"]
    assert client.get("/health/live").status_code == 200


def test_a_video_is_no_picture(client: TestClient, videos: dict[str, dict[str, Any]]) -> None:
    content = client.get(videos["red.mp4"]["stream"]).content
    assert search(client, content).status_code == 422
