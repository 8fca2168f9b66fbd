"""Routes that give what is seen and heard: videos by ranges, pictures of clips, moments."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from hbi_infer.index.store import FileVersion
from hbi_infer.serve.bodies import query_fields
from hbi_infer.serve.converted import cut_moment
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.library import ServedVideo, open_inside
from hbi_infer.serve.problems import bad_input
from hbi_infer.serve.ranges import FileRange
from hbi_infer.serve.service import Service, service_of
from hbi_infer.serve.thumbnails import etag_of, width_for

MOST_WIDTH = 4096
MOST_SECONDS = 1e9
_MEDIA_TYPES = {
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpg": "video/mpeg",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
}


async def stream(request: Request) -> Response:
    """Gives a video, or a range of it: as it is, or as MP4 that browsers play."""
    service = service_of(request)
    fields = query_fields(request, ("collection", "format"))
    if fields.has("format"):
        fields.choice("format", "mp4", ("mp4",))
        return await _converted(request, service)

    def work(_job: Job) -> tuple[ServedVideo, FileIO]:
        video = service.library.video(request.path_params["id"])
        return video, FileIO(open_inside(video.collection.folder, video.entry.path))

    video, file = await service.pictures.run(request, work, seconds=service.options.limits.request_seconds)
    suffix = os.path.splitext(video.entry.path)[1].lower()  # noqa: PTH122 - it may have bytes that are no text
    return FileRange(file, _MEDIA_TYPES.get(suffix, "application/octet-stream"))


async def _converted(request: Request, service: Service) -> Response:
    def work(job: Job) -> FileIO:
        video = service.library.video(request.path_params["id"])
        file = video.file()
        return FileIO(service.converted.open(etag_of(video.id, FileVersion.of(file)), file, job))

    seconds = service.options.limits.long_seconds
    return FileRange(await service.conversions.run(request, work, seconds=seconds, stage="convert"), "video/mp4")


async def moment(request: Request) -> Response:
    """Gives a clip as a video of its own, to be kept."""
    service = service_of(request)
    query_fields(request, ("collection",))

    def work(_job: Job) -> tuple[str, FileIO, str]:
        video, clip = service.library.clip(request.path_params["id"])
        descriptor, suffix = cut_moment(video.file(), clip.start_seconds, clip.end_seconds)
        name = f"{PurePosixPath(video.path).stem} {clip.start_seconds:.1f}-{clip.end_seconds:.1f} s{suffix}"
        return name, FileIO(descriptor), suffix

    seconds = service.options.limits.long_seconds
    name, file, suffix = await service.conversions.run(request, work, seconds=seconds, stage="cut")
    # The name as RFC 6266 has it, with nothing in it that could end it.
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return FileRange(file, _MEDIA_TYPES[suffix], {"content-disposition": disposition})


async def thumbnail(request: Request) -> Response:
    """Gives the picture of a clip at a time, as JPEG."""
    service = service_of(request)
    fields = query_fields(request, ("collection", "at", "width"))
    width = width_for(fields.whole("width", 320, least=1, most=MOST_WIDTH))
    at_seconds = fields.number("at", None, least=0, most=MOST_SECONDS)
    known_by_client = request.headers.get("if-none-match", "")

    def work(_job: Job) -> tuple[str, bytes | None]:
        return picture(service, request.path_params["id"], at_seconds, width, known_by_client)

    seconds = service.options.limits.request_seconds
    etag, content = await service.pictures.run(request, work, seconds=seconds, stage="thumbnail")
    headers = {"etag": f'"{etag}"', "cache-control": "private, max-age=3600"}
    if content is None:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/jpeg", headers=headers)


def picture(
    service: Service, clip_id: str, at_seconds: float | None, width: int, known_by_client: str = ""
) -> tuple[str, bytes | None]:
    """Returns the picture of a clip at a time as JPEG, and its name; None for one that the client has.

    Args:
        service: The service.
        clip_id: Id of the clip.
        at_seconds: Time in the video; None for the middle of the clip.
        width: Size of the longer side, one of `hbi_infer.serve.thumbnails.WIDTHS`.
        known_by_client: Names of the pictures that the client has.

    Raises:
        Problem: There is no such clip, the time is not in it, or the file is gone.
        VideoError: The file cannot be read.
    """
    video, clip = service.library.clip(clip_id)
    seconds = (clip.start_seconds + clip.end_seconds) / 2 if at_seconds is None else at_seconds
    if not clip.start_seconds - 1 <= seconds <= clip.end_seconds + 1:
        raise bad_input(f"at is {seconds:g}; the clip goes from {clip.start_seconds:g} to {clip.end_seconds:g} s")
    etag = etag_of(video.id, video.entry.version, round(seconds, 3), width)
    if f'"{etag}"' in known_by_client:
        return etag, None
    content = service.thumbnails.known(etag)
    return etag, content or service.thumbnails.make(etag, video.file(), seconds, width)
