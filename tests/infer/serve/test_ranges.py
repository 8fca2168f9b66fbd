"""Ranges of a file."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from hbi_infer.serve.ranges import CHUNK_BYTES, FileRange

CONTENT = bytes(range(256)) * (CHUNK_BYTES // 256 * 2) + b"the end"
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    path = tmp_path_factory.mktemp("ranges") / "file"
    path.write_bytes(CONTENT)

    async def app(scope: object, receive: object, send: object) -> None:
        response: Response = FileRange(FileIO(path), "video/mp4")
        await response(scope, receive, send)  # type: ignore[arg-type]

    return TestClient(app)


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        (f"bytes={CHUNK_BYTES - 3}-{CHUNK_BYTES + 3}", CHUNK_BYTES - 3, CHUNK_BYTES + 4),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE + 9}", 0, SIZE),
        (f"bytes=3-{SIZE + 9}", 3, SIZE),
    ],
)
def test_a_range(client: TestClient, asked: str, first: int, end: int) -> None:
    answer = client.get("/", headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - first)


@pytest.mark.parametrize(
    "asked", ["", "bytes=-", "bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes", "bytes=--1"]
)
def test_what_is_no_single_range_is_the_whole(client: TestClient, asked: str) -> None:
    answer = client.get("/", headers={"range": asked})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", f"bytes={'9' * 18}-"])
def test_a_range_beyond_the_end(client: TestClient, asked: str) -> None:
    answer = client.get("/", headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")


def test_a_file_that_is_known(client: TestClient) -> None:
    head = client.head("/")
    assert (head.content, head.headers["content-length"]) == (b"", str(SIZE))
    assert client.get("/", headers={"if-none-match": head.headers["etag"]}).status_code == 304
    part = {"range": "bytes=0-1"}
    assert client.get("/", headers={**part, "if-range": head.headers["etag"]}).status_code == 206
    assert client.get("/", headers={**part, "if-range": '"old"'}).status_code == 200


def test_no_descriptor_stays_open(client: TestClient) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for asked in ("bytes=0-1", f"bytes={SIZE}-", ""):
        client.get("/", headers={"range": asked})
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
