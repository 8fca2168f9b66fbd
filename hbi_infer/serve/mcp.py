"""The service for language models: tools of the Model Context Protocol, over stdio or at `/mcp`.

The tools read only. They do what the routes do, with the same ids, limits and queues, and give pictures too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, cast

from anyio import AsyncFile
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from starlette.types import Receive, Scope, Send

from hbi_infer import __version__
from hbi_infer.errors import HBIError
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.library import Library
from hbi_infer.serve.mcp_tools import MOST_PICTURES, TOOLS, USUAL_PICTURES
from hbi_infer.serve.media_routes import picture
from hbi_infer.serve.problems import Problem
from hbi_infer.serve.service import Service
from hbi_infer.serve.settings import ServeOptions

PICTURE_WIDTH = 480
READ_BYTES = 64 * 1024
MOST_LINES = 16
"""Number of messages of a client that may wait."""


class McpServer:
    """The tools over a service.

    Args:
        service: The service, which must run while tools are called.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.server: Server[Any] = Server(
            "hbi-infer",
            version=__version__,
            title="hbi-infer",
            instructions=instructions(service.library),
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._sessions = StreamableHTTPSessionManager(
            self.server,
            json_response=True,
            stateless=True,  # nothing is kept of a client
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # our guard does it
            max_request_body_size=service.options.limits.json_bytes,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes requests over HTTP for as long as the block."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request over HTTP."""
        await self._sessions.handle_request(scope, receive, send)

    async def run_stdio(self) -> None:
        """Serves one client over stdin and stdout until it goes."""
        stdin = cast("AsyncFile[str]", _Lines(sys.stdin.fileno()))
        async with stdio_server(stdin) as (incoming, outgoing):
            await self.server.run(incoming, outgoing, self.server.create_initialization_options())

    async def _list(self, _context: ServerRequestContext[Any], _page: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[tool.listed(name) for name, tool in TOOLS.items()])

    async def _call(self, _context: ServerRequestContext[Any], asked: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(asked.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {asked.name[:40]!r}; there are: {', '.join(TOOLS)}")
        arguments = dict(asked.arguments or {})
        try:
            given = Fields({"pictures": arguments.pop("pictures", None)}, ("pictures",), asked.name)
            most = given.whole("pictures", USUAL_PICTURES, least=0, most=MOST_PICTURES)
            found = await tool.call(self._service, arguments)
        except Problem as problem:
            return _failure(problem.detail)
        except HBIError as error:
            return _failure(self._service.library.shown(str(error)))
        shown, images = await self._pictures(found.moments, most)
        document = found.document | {"pictures": shown}
        text = TextContent(type="text", text=json.dumps(document, ensure_ascii=False))
        return CallToolResult(content=[text, *images], structured_content=document)

    async def _pictures(
        self, moments: list[tuple[str, float | None]], most: int
    ) -> tuple[list[dict[str, Any]], list[ImageContent]]:
        """Returns what the first pictures show, and the pictures; those that cannot be made are left out."""
        shown: list[dict[str, Any]] = []
        images: list[ImageContent] = []
        made = await asyncio.gather(*(self._picture(*moment) for moment in moments[:most]))
        for (clip, seconds), content in zip(moments, made, strict=False):
            if content:
                shown.append({"clip": clip, "seconds": seconds})
                data = base64.b64encode(content).decode()
                images.append(ImageContent(type="image", data=data, mime_type="image/jpeg"))
        return shown, images

    async def _picture(self, clip: str, seconds: float | None) -> bytes | None:
        def work(_job: Job) -> bytes | None:
            return picture(self._service, clip, seconds, PICTURE_WIDTH)[1]

        limit_seconds = self._service.options.limits.request_seconds
        with suppress(Problem, HBIError):  # the file is gone since it was indexed
            return await self._service.pictures.run(None, work, seconds=limit_seconds, stage="thumbnail")
        return None


class _Lines:
    """The lines of stdin, read by a thread that nothing waits for: Ctrl-C must not wait for the client's next line.

    Args:
        file: Descriptor of stdin. A file object has a lock, which the thread would keep from the end of the process.
    """

    def __init__(self, file: int) -> None:
        self._file, self._loop = file, asyncio.get_running_loop()
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue(MOST_LINES)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError, RuntimeError, CancelledError):  # the loop has ended
            rest = b""
            while content := os.read(self._file, READ_BYTES):
                *lines, rest = (rest + content).split(b"\n")
                for line in lines:
                    self._put(line.decode(errors="replace"))
            self._put(None)

    def _put(self, line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(self._waiting.put(line), self._loop).result()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        line = await self._waiting.get()
        if line is None:
            raise StopAsyncIteration
        return line


def instructions(library: Library) -> str:
    """Returns what a language model is told of the service.

    Args:
        library: The served folders and models.
    """
    lines = ["Searches folders of videos. Begin with search: it gives the ids that the other tools take."]
    for collection in library.collections.values():
        line = f"Collection {collection.id}: {collection.name}; it can {', '.join(collection.tasks)}."
        lines.append(f"{line} {collection.model.bundle.manifest.notice}".strip())
    return "\n".join(lines)


def serve_stdio(options: ServeOptions) -> None:
    """Serves one client over stdin and stdout until it goes.

    Args:
        options: Options of the service; those of its address do not count.

    Raises:
        InputError: A folder or a model cannot be used.
        HBIError: A model or an index cannot be used.
    """
    asyncio.run(_serve_stdio(Service(options, Library.open(options))))


async def _serve_stdio(service: Service) -> None:
    async with service.running():
        await McpServer(service).run_stdio()


def _failure(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)
