"""A file as a response, or a range of it, read from a file that is already open."""

from __future__ import annotations

import asyncio
import os
import re
from email.utils import formatdate
from io import FileIO

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hbi_engines.operating_system import read_at
from hbi_infer.serve.job_queue import wait_until_gone
from hbi_infer.serve.problems import Problem

CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class FileRange(Response):
    """A file, or the range that a request asks for; several ranges at once are answered with the whole file.

    Args:
        file: The open file; it is closed with the response.
        media_type: Kind of the file.
        headers: Further headers.
    """

    def __init__(self, file: FileIO, media_type: str, headers: dict[str, str] | None = None) -> None:
        self._file = file
        status = os.fstat(file.fileno())
        self._size = status.st_size
        self.etag = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
        self._changed = formatdate(status.st_mtime, usegmt=True)
        self.media_type = media_type
        self.status_code = 200
        self.background = None
        known = {"accept-ranges": "bytes", "etag": self.etag, "last-modified": self._changed}
        self.init_headers({**known, "cache-control": "private, no-cache", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file as ASGI has it."""
        try:
            given = Headers(scope=scope)
            if given.get("if-none-match") == self.etag:
                await Response(status_code=304, headers={"etag": self.etag})(scope, receive, send)
                return
            await self._send(scope, receive, send, *self._range(given))
        except Problem as problem:
            await problem.response()(scope, receive, send)
        finally:
            self._file.close()

    def _range(self, given: Headers) -> tuple[int, int, bool]:
        """Returns the first byte that is asked for, the one after the last, and whether it is a range.

        Raises:
            Problem: It lies beyond the end.
        """
        parts = _RANGE.fullmatch(given.get("range", "").replace(" ", ""))
        is_old = given.get("if-range", self.etag) not in (self.etag, self._changed)
        if parts is None or is_old or parts[1] == parts[2] == "":
            return 0, self._size, False
        if parts[1]:
            first, end = int(parts[1]), min(int(parts[2] or self._size), self._size - 1) + 1
        else:
            first, end = max(self._size - int(parts[2]), 0), self._size
        if parts[1] and parts[2] and int(parts[2]) < int(parts[1]):
            return 0, self._size, False
        if first >= end:
            detail = f"the range begins at byte {first} and the file has {self._size} bytes: ask for a part of it"
            raise Problem(416, "range", "No such range", detail, {"content-range": f"bytes */{self._size}"})
        return first, end, True

    async def _send(self, scope: Scope, receive: Receive, send: Send, first: int, end: int, is_range: bool) -> None:
        self.headers["content-length"] = str(end - first)
        if is_range:
            self.headers["content-range"] = f"bytes {first}-{end - 1}/{self._size}"
        status = 206 if is_range else 200
        await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})
        if scope["method"] == "HEAD" or first == end:
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.ensure_future(wait_until_gone(Request(scope, receive)))
        try:
            while first < end and not gone.done():
                chunk = await asyncio.to_thread(read_at, self._file.fileno(), min(CHUNK_BYTES, end - first), first)
                first += len(chunk)
                if not chunk:  # the file was cut short meanwhile: the client learns it from the missing bytes
                    break
                await send({"type": "http.response.body", "body": chunk, "more_body": first < end})
        finally:
            gone.cancel()
