"""Routes that answer, caption and explain, from what the index holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hbi_infer.index.clip_tokens import VideoTokens, clips_of_video, indexed_tokens
from hbi_infer.options import Answering, Explaining
from hbi_infer.serve.bodies import read_json
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.library import ServedVideo, clip_id
from hbi_infer.serve.problems import bad_input
from hbi_infer.serve.searching import thumbnail_url
from hbi_infer.serve.service import Service, service_of
from hbi_infer.tasks.caption import Caption, caption_clips
from hbi_infer.tasks.explain import explain as explain_clip
from hbi_infer.tasks.qa import Answer, answer_clips, check_questions

MOST_ANSWERS = 50
_MOST_ID = 100


async def answer(request: Request) -> Response:
    """Answers a question about a video."""
    service, document = await _read(request)
    return JSONResponse(await answered(service, document, request))


async def answered(service: Service, document: dict[str, Any], request: Request | None = None) -> dict[str, Any]:
    """Answers a question about a video; returns the document of the response.

    Args:
        service: The service.
        document: The question and the video, as the route takes them.
        request: The request that wants it, if one does.
    """
    fields = Fields(document, ("collection", "question", "video", "top_k", "all_clips"))
    question = fields.text("question", most=service.options.limits.text_letters)
    options = Answering(
        top_k=fields.whole("top_k", 3, least=1, most=MOST_ANSWERS), all_clips=fields.truth("all_clips", False)
    )
    video = await _video(request, service, fields)
    model = video.collection.model
    model.bundle.require("qa")
    check_questions([question])
    asked = await service.encode(video.collection, (question,))

    def work(_job: Job) -> dict[str, Any]:
        clips = clips_of_video(indexed_tokens(video.collection.index, video.entry.path))
        answers = answer_clips(model, asked, clips, options)[0]
        best = max(answers, key=lambda each: each.probability)
        document = {"question": question, "video": video.id} | _answer(video, best)
        return document | ({"clips": [_answer(video, each) for each in answers]} if options.all_clips else {})

    return await service.tasks.run(request, work, seconds=service.options.limits.long_seconds, stage="answer")


async def caption(request: Request) -> Response:
    """Writes a caption for each clip of a video, or for one of them."""
    service, document = await _read(request)
    return JSONResponse(await captioned(service, document, request))


async def captioned(service: Service, document: dict[str, Any], request: Request | None = None) -> dict[str, Any]:
    """Writes captions; returns the document of the response.

    Args:
        service: The service.
        document: The video or clip, as the route takes it.
        request: The request that wants it, if one does.
    """
    fields = Fields(document, ("collection", "video", "clip"))
    video = await _video(request, service, fields)
    wanted = fields.text_or_none("clip", most=_MOST_ID)
    model = video.collection.model
    model.bundle.require("caption")

    def work(job: Job) -> dict[str, Any]:
        tokens = _tokens_of(video, wanted)
        captions = []
        for _, written in caption_clips(model, clips_of_video(tokens)):
            job.check()
            captions.append(_caption(video, written))
        return {"video": video.id, "captions": captions}

    return await service.tasks.run(request, work, seconds=service.options.limits.long_seconds, stage="caption")


async def explain(request: Request) -> Response:
    """Says what each word and each frame are worth together."""
    service, document = await _read(request)
    return JSONResponse(await explained(service, document, request))


async def explained(service: Service, document: dict[str, Any], request: Request | None = None) -> dict[str, Any]:
    """Says what each word and each frame are worth together; returns the document of the response.

    Args:
        service: The service.
        document: The query and the video, as the route takes them.
        request: The request that wants it, if one does.
    """
    fields = Fields(document, ("collection", "query", "video", "clip"))
    query = fields.text("query", most=service.options.limits.text_letters)
    if not query.strip():
        raise bad_input("the query is empty: give a sentence that says what to find")
    video = await _video(request, service, fields)
    wanted = fields.text_or_none("clip", most=_MOST_ID)
    asked = await service.encode(video.collection, (query,))

    def work(_job: Job) -> dict[str, Any]:
        tokens = indexed_tokens(video.collection.index, video.entry.path)
        number = None if wanted is None else _number_of(video, wanted, [clip.start_seconds for clip in tokens.clips])
        found = explain_clip(video.collection.model, tokens, asked, Explaining(clip=number))
        clip = clip_id(video.id, found.start_seconds)
        return found.to_json() | {
            "video": video.path,
            "video_id": video.id,
            "clip_id": clip,
            "remarks": list(found.remarks),
            "frames": [thumbnail_url(clip, seconds) for seconds in found.frame_seconds],
        }

    return await service.tasks.run(request, work, seconds=service.options.limits.long_seconds, stage="explain")


async def _read(request: Request) -> tuple[Service, dict[str, Any]]:
    service = service_of(request)
    return service, await read_json(request, service.options.limits)


async def _video(request: Request | None, service: Service, fields: Fields) -> ServedVideo:
    """Returns the video that a request names."""
    given = fields.text("video", most=_MOST_ID)

    def work(_job: Job) -> ServedVideo:
        return service.library.video(given)

    return await service.searches.run(request, work, seconds=service.options.limits.request_seconds)


def _number_of(video: ServedVideo, wanted: str, starts: list[float]) -> int:
    """Returns the number of a clip, from 1.

    Raises:
        Problem: The video has no such clip.
    """
    ids = [clip_id(video.id, start) for start in starts]
    if wanted not in ids:
        raise bad_input(f"clip is {wanted!r}, which is none of the video's: take one of /v1/videos/{video.id}")
    return ids.index(wanted) + 1


def _tokens_of(video: ServedVideo, wanted: str | None) -> VideoTokens:
    """Returns the tokens of a video, or of one of its clips."""
    tokens = indexed_tokens(video.collection.index, video.entry.path)
    if wanted is None:
        return tokens
    number = _number_of(video, wanted, [clip.start_seconds for clip in tokens.clips])
    return replace(tokens, clips=tokens.clips[number - 1 : number])


def _answer(video: ServedVideo, found: Answer) -> dict[str, Any]:
    return {
        "answers": [{"answer": choice.text, "probability": choice.probability} for choice in found.choices],
        "confident": found.is_confident,
        "clip": clip_id(video.id, found.start_seconds),
        "start_seconds": found.start_seconds,
        "end_seconds": found.end_seconds,
        "unfamiliar": found.unfamiliar,
    }


def _caption(video: ServedVideo, written: Caption) -> dict[str, Any]:
    return {
        "clip": clip_id(video.id, written.start_seconds),
        "start_seconds": written.start_seconds,
        "end_seconds": written.end_seconds,
        "caption": written.text,
        "log_probability": written.log_probability,
        "complete": written.is_complete,
        "unfamiliar": written.unfamiliar,
    }
