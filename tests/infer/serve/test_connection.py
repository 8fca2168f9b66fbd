"""Clients that send slowly, send no HTTP, or are too many, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from hbi_infer.serve.connection import protocol_with
from hbi_infer.serve.running import listen

SECONDS = 0.5
MOST = 5


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(hello, http=protocol_with(SECONDS, MOST), ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes a connection."""
    started = time.monotonic()
    connection.settimeout(10)
    while connection.recv(1000):
        pass
    return time.monotonic() - started


def test_a_client_that_says_nothing(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert closed_after(connection) < 5


def test_a_head_that_comes_letter_by_letter(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() < started + 10:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - started < 5


def test_a_client_in_time_is_served_again_and_again(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for path in (b"/", b"/slow", b"/"):
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            connection.settimeout(10)
            answer = b""
            while not answer.endswith(b"hello"):
                answer += connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        assert closed_after(connection) < 5


def refusal(connection: socket.socket, status: int) -> str:
    """The detail of the problem document that a connection ends with."""
    connection.settimeout(10)
    answer = b""
    while part := connection.recv(1000):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d" % status)
    for line in (b"content-type: application/problem\\+json", b"connection: close", b"x-content-type-options: nosniff"):
        assert re.search(line, head)
    assert document["status"] == status
    return str(document["detail"])


@pytest.mark.parametrize("head", [b"\x16\x03\x01\x02", b"GET / HTTP/1.1", b"GET /a b HTTP/1.1", b"a" * 70_000])
def test_what_is_no_http(port: int, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert refusal(connection, 400).startswith("what came is no request of HTTP/1.1")


def test_more_connections_than_are_served(port: int) -> None:
    served = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert refusal(connection, 503) == "too many connections wait already: try again in 1 s"
    served[0].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    served[0].settimeout(10)
    assert served[0].recv(1000).startswith(b"HTTP/1.1 200")
    for connection in served:
        connection.close()
