"""The route that searches."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hbi_infer.serve.bodies import PictureBody, content_type, read_json, read_picture
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.searching import Asked, search_like, search_texts, tokens_of_clip, tokens_of_picture
from hbi_infer.serve.service import Service, service_of


async def search(request: Request) -> Response:
    """Finds moments by sentences, by a picture, or by another moment."""
    service = service_of(request)
    limits = service.options.limits
    if content_type(request) == "multipart/form-data":
        body = await read_picture(request, limits)
        asked = Asked.read(body.options, limits, has_picture=True)
        return await _by_picture(request, service, asked, body)
    asked = Asked.read(await read_json(request, limits), limits)
    if asked.like_clip is not None:
        return await _by_clip(request, service, asked, asked.like_clip)
    return JSONResponse(await searched(service, asked, request))


async def searched(service: Service, asked: Asked, request: Request | None = None) -> dict[str, Any]:
    """Searches for sentences; returns the document of the response.

    Args:
        service: The service.
        asked: The search.
        request: The request that wants it, if one does.
    """
    collection = service.library.collection(asked.collection)
    texts = await service.encode(collection, asked.query)

    def work(_job: Job) -> dict[str, Any]:
        return search_texts(collection, asked, texts)

    seconds = service.options.limits.request_seconds
    return await service.searches.run(request, work, seconds=seconds, stage="search")


async def _by_clip(request: Request, service: Service, asked: Asked, clip: str) -> Response:
    def work(_job: Job) -> dict[str, Any]:
        video, found = service.library.clip(clip)
        collection = service.library.collection(asked.collection) if asked.collection else video.collection
        return search_like(collection, asked, tokens_of_clip(video, found.start_seconds, collection))

    seconds = service.options.limits.request_seconds
    return JSONResponse(await service.searches.run(request, work, seconds=seconds, stage="search"))


async def _by_picture(request: Request, service: Service, asked: Asked, body: PictureBody) -> Response:
    collection = service.library.collection(asked.collection)

    def work(_job: Job) -> dict[str, Any]:
        return search_like(collection, asked, tokens_of_picture(collection.model, body.content))

    seconds = service.options.limits.request_seconds
    return JSONResponse(await service.uploads.run(request, work, seconds=seconds, stage="picture"))
