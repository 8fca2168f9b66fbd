"""Bodies of requests, read within limits of size and time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from hbi_infer.serve.fields import Fields, read_object
from hbi_infer.serve.problems import Problem, bad_input, too_large
from hbi_infer.serve.settings import Limits


@dataclass(frozen=True)
class PictureBody:
    """A body with a picture.

    Attributes:
        content: Content of the file, whose name and claimed kind are never used.
        options: The JSON object beside it.
    """

    content: bytes
    options: dict[str, Any]


async def read_json(request: Request, limits: Limits, *, most_bytes: int | None = None) -> dict[str, Any]:
    """Reads a body that is a JSON object.

    Args:
        request: The request.
        limits: Limits of requests.
        most_bytes: Size of the largest body, in place of that of the limits.

    Raises:
        Problem: It is something else, too large or too slow.
    """
    kind = content_type(request)
    if kind != "application/json":
        detail = f"the body is {kind[:60] or 'of no stated kind'}; send application/json"
        raise Problem(415, "media-type", "Not this kind of body", detail)
    return read_object(await _read(request, most_bytes or limits.json_bytes, limits.body_seconds))


async def read_picture(request: Request, limits: Limits) -> PictureBody:
    """Reads a form with the fields `picture`, a file, and `options`, a JSON object.

    Raises:
        Problem: It is something else, too large or too slow.
    """
    content = await _read(request, limits.picture_bytes, limits.body_seconds)

    async def whole() -> Any:
        yield content

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=1, max_part_size=limits.json_bytes)
    parser.spool_max_size = limits.picture_bytes + 1  # it stays in memory
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        detail = getattr(error, "message", str(error))
        raise bad_input(f"the form cannot be read ({detail[:80]}): send a file picture, and options") from None
    try:
        picture, options = form.get("picture"), form.get("options") or "{}"
        if not isinstance(picture, UploadFile) or not isinstance(options, str):
            raise bad_input("the form has no file picture: send one, and options as JSON if there are any")
        return PictureBody(await picture.read(), read_object(options.encode("utf-8", "replace")))
    finally:
        await form.close()


async def read_login(request: Request, limits: Limits) -> str:
    """Reads the token of the login form.

    Raises:
        Problem: There is none.
    """
    if content_type(request) != "application/x-www-form-urlencoded":
        raise Problem(415, "media-type", "Not this kind of body", "send the form of /login")
    content = await _read(request, 4096, limits.body_seconds)
    from urllib.parse import parse_qs

    return (parse_qs(content.decode("utf-8", "replace"), max_num_fields=5).get("token") or [""])[0].strip()


def query_fields(request: Request, known: tuple[str, ...]) -> Fields:
    """Returns the fields of the address's query.

    Raises:
        Problem: There is one that is not known, or one is given twice.
    """
    pairs = request.query_params.multi_items()
    if len(dict(pairs)) < len(pairs):
        raise bad_input("a field of the address is given twice: give it once")
    return Fields(dict(pairs), known, "the address", are_texts=True)


def content_type(request: Request) -> str:
    """Returns the stated kind of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, most_bytes: int, seconds: float) -> bytes:
    stated = request.headers.get("content-length", "0")
    most = f"{most_bytes / 2**20:g} MiB" if most_bytes >= 2**20 else f"{most_bytes // 1024} KiB"
    if stated.isdecimal() and int(stated) > most_bytes:
        raise too_large(f"the body has {int(stated)} bytes", most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most_bytes:
                    raise too_large("the body goes on and on", most)
                parts.append(part)
    except TimeoutError:
        detail = f"the body did not come within {seconds:g} s: send it faster"
        raise Problem(408, "slow-body", "The body came too slowly", detail, {"connection": "close"}) from None
    return b"".join(parts)
