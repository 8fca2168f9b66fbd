"""Tools of the Model Context Protocol, called by the SDK's own client over stdio and HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult
from starlette.testclient import TestClient

from hbi_infer.serve.mcp_tools import MOST_PICTURES, TOOLS
from tests.builders.service import COMMAND, Running, options, running
from tests.builders.tiny_bundle import NOTICE
from tests.paths import ROOT

TOKEN = "a token of many letters"


def arguments_of(library: Path) -> list[str]:
    return ["--videos", str(library / "videos"), "--bundle", str(library / "bundle"), "--device", "cpu"]


def environment_of(library: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(library / "cache")}


def over_stdio(library: Path, work: Callable[[Client], Awaitable[None]]) -> None:
    """Has the SDK's client start the command, and speak with it."""
    server = StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "mcp", *arguments_of(library), "--no-update"],
        env=environment_of(library),
        cwd=ROOT,
    )
    asyncio.run(_connected(server, work))


async def _connected(server: Any, work: Callable[[Client], Awaitable[None]]) -> None:
    async with asyncio.timeout(120), Client(server) as client:
        await work(client)


def over_http(service: Running, work: Callable[[Client], Awaitable[None]], token: str = TOKEN) -> None:
    async def connected() -> None:
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http:
            await _connected(streamable_http_client(f"{service.address}mcp", http_client=http), work)

    asyncio.run(connected())


def pictures_of(result: CallToolResult) -> list[bytes]:
    return [base64.b64decode(block.data) for block in result.content if block.type == "image"]


def told(result: CallToolResult) -> dict[str, Any]:
    """The document of a result, which its first block holds too."""
    assert not result.is_error, result.content
    [text] = [block.text for block in result.content if block.type == "text"]
    assert json.loads(text) == result.structured_content
    return dict(result.structured_content)


async def use_all_tools(client: Client) -> None:
    """Finds a video, and asks about it all that there is to ask."""
    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert listed.keys() == TOOLS.keys() == {"search", "ask", "caption", "explain"}
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in listed.values())
    result = await client.call_tool("search", {"query": "a green video", "top_k": 2, "min_match": 0})
    found = told(result)
    best = found["results"][0]
    assert (best["path"], best["start_seconds"]) == ("green then blue.mkv", 0.0)
    assert [picture["clip"] for picture in found["pictures"]] == [each["clip"] for each in found["results"]]
    assert [picture[:2] for picture in pictures_of(result)] == [b"\xff\xd8"] * 2
    asked = {"question": "what colour is it?", "video": best["video"], "top_k": 1}
    assert told(await client.call_tool("ask", asked))["answers"][0]["answer"] == "green"
    captioned = told(await client.call_tool("caption", {"video": best["video"]}))
    assert [each["caption"] for each in captioned["captions"]] == ["a green video", "a blue video"]
    explained = await client.call_tool("explain", {"query": "blue", "video": best["video"], "pictures": 1})
    level = told(explained)["levels"][0]
    assert max(pair["interaction"] for pair in level["strongest"]) == level["strongest"][0]["interaction"]
    assert len(pictures_of(explained)) == 1


async def call_wrongly(client: Client) -> None:
    """Gives what cannot be used; each time a message says what is wrong, and the next call works."""
    for tool, arguments, said in [
        ("search", {}, "give one of query"),
        ("search", {"query": "x" * 3000}, "give at most 2000"),
        ("search", {"query": "red", "path": "/etc/passwd"}, "has no field 'path'"),
        ("search", {"query": "red", "like_clip": "1"}, "has no field 'like_clip'"),
        ("search", {"query": "red", "collection": "none"}, "there is no collection 'none'"),
        ("search", {"query": "red", "collection": 3}, "collection is 3; it must be a text"),
        ("search", {"query": "red", "pictures": MOST_PICTURES + 1}, "pictures is 13"),
        ("ask", {"question": "what?", "video": "../../etc/passwd"}, "there is no video"),
        ("caption", {}, "has no video"),
        ("explain", {"query": " ", "video": "1"}, "the query is empty"),
    ]:
        result = await client.call_tool(tool, arguments)
        assert result.is_error, (tool, arguments)
        [block] = result.content
        assert block.type == "text"
        assert said in block.text
    with pytest.raises(MCPError, match="there is no tool 'delete'"):
        await client.call_tool("delete", {})
    assert not (await client.call_tool("search", {"query": "red"})).is_error


def test_tools_over_stdio(shared: TestClient, library: Path) -> None:
    async def use(client: Client) -> None:
        assert client.server_info.name == "hbi-infer"
        assert client.instructions
        assert NOTICE in client.instructions
        assert str(library) not in client.instructions
        await use_all_tools(client)
        await call_wrongly(client)

    over_stdio(library, use)


@pytest.fixture(scope="module")
def service(library: Path, shared: TestClient, tmp_path_factory: pytest.TempPathFactory) -> Any:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    with running(*arguments_of(library), "--token-file", token, "--no-update", env=environment_of(library)) as service:
        yield service


def test_tools_over_http(service: Running) -> None:
    over_http(service, use_all_tools)
    over_http(service, call_wrongly)


def test_nobody_gets_in_without_the_token(service: Running) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert service.client.post("/mcp", json=message).status_code == 401
    own = {"authorization": f"Bearer {TOKEN}"}
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        assert service.client.post("/mcp", json=message, headers=own | headers).status_code in (403, 421)
    assert service.client.get("/mcp", headers=own).status_code == 405
    large = b" " * (options_limit() + 1)
    assert service.client.post("/mcp", content=large, headers=own).status_code == 413


def options_limit() -> int:
    return options(ROOT, videos=(ROOT,)).limits.json_bytes


def test_a_file_that_is_gone_has_no_picture(shared: TestClient, library: Path) -> None:
    video = library / "videos" / "red.mp4"

    async def use(client: Client) -> None:
        video.rename(library / "red.mp4")
        try:
            result = await client.call_tool("search", {"query": "a red video", "top_k": 1, "min_match": 0})
        finally:
            (library / "red.mp4").rename(video)
        found = told(result)
        assert (found["results"][0]["path"], found["pictures"]) == ("red.mp4", [])
        assert pictures_of(result) == []

    over_stdio(library, use)


@pytest.mark.parametrize("how", ["close", signal.SIGINT])
def test_it_ends_with_its_client(shared: TestClient, library: Path, how: Any) -> None:
    process = subprocess.Popen(
        [*COMMAND, "mcp", *arguments_of(library), "--no-update"],
        cwd=ROOT,
        env=environment_of(library),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        if how == "close":
            process.stdin.close()
            assert process.wait(20) == 0
        else:
            process.send_signal(how)
            assert process.wait(20) == 130
            process.stdin.close()
        said = process.stderr.read()
        assert said == ("" if how == "close" else "error: interrupted: what was indexed or written before is kept\n")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
