"""Routes that say what is served: collections, videos, failures."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hbi_infer.serve.bodies import query_fields
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.library import Collection, ServedVideo, clip_id, shown_path
from hbi_infer.serve.searching import thumbnail_url
from hbi_infer.serve.service import Service, service_of

MOST_LISTED = 500
MOST_OFFSET = 10**9


async def collections(request: Request) -> Response:
    """Lists the served folders and models."""
    service = service_of(request)
    query_fields(request, ())

    def work(_job: Job) -> dict[str, Any]:
        return {
            "collections": [each.to_json() for each in service.library.collections.values()],
            "needs_token": service.sessions.needs_token,
        }

    return await _answer(request, service, work)


async def videos(request: Request) -> Response:
    """Lists the indexed videos of a collection, in order of path."""
    service = service_of(request)
    fields = query_fields(request, ("collection", "offset", "limit", "q"))
    collection = named_collection(service, fields)
    offset = fields.whole("offset", 0, least=0, most=MOST_OFFSET)
    limit = fields.whole("limit", 100, least=1, most=MOST_LISTED)
    wanted = fields.text("q", "", most=500).casefold()

    def work(_job: Job) -> dict[str, Any]:
        found = list(collection.videos().items())
        if wanted:
            found = [each for each in found if wanted in shown_path(each[1].path).casefold()]
        page = [_with_thumbnail(ServedVideo(collection, *each)) for each in found[offset : offset + limit]]
        return {"videos": page, "total": len(found)}

    return await _answer(request, service, work)


async def video(request: Request) -> Response:
    """Describes a video and its clips."""
    service = service_of(request)
    query_fields(request, ("collection",))

    def work(_job: Job) -> dict[str, Any]:
        found = service.library.video(request.path_params["id"])
        clips = [
            {
                "id": clip_id(found.id, clip.start_seconds),
                "start_seconds": clip.start_seconds,
                "end_seconds": clip.end_seconds,
            }
            for clip in found.clips()
        ]
        return _with_thumbnail(found) | {"clips": clips}

    return await _answer(request, service, work)


async def failures(request: Request) -> Response:
    """Lists the files that could not be indexed, with the reasons."""
    service = service_of(request)
    collection = named_collection(service, query_fields(request, ("collection",)))

    def work(_job: Job) -> dict[str, Any]:
        faults = sorted(collection.index.failures(), key=lambda fault: fault.path)
        listed = [{"path": shown_path(fault.path), "reason": service.library.shown(fault.reason)} for fault in faults]
        return {"failures": listed}

    return await _answer(request, service, work)


def named_collection(service: Service, fields: Fields) -> Collection:
    """Returns the collection that a request names, or the first.

    Raises:
        Problem: There is none of this name.
    """
    given = fields.text_or_none("collection", most=100)
    return service.library.collection(given)


def _with_thumbnail(video: ServedVideo) -> dict[str, Any]:
    """Describes a video, with the address of a picture from its middle."""
    clip = video.middle_clip()
    if clip is None:
        return video.to_json() | {"thumbnail": None}
    middle_seconds = (clip.start_seconds + clip.end_seconds) / 2
    return video.to_json() | {"thumbnail": thumbnail_url(clip_id(video.id, clip.start_seconds), middle_seconds)}


async def _answer(request: Request, service: Service, work: Any) -> Response:
    seconds = service.options.limits.request_seconds
    return JSONResponse(await service.searches.run(request, work, seconds=seconds))
