"""The OpenAPI document of the service."""

from __future__ import annotations

from typing import Any

from hbi_infer import __version__

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
ID: Schema = {"type": "string", "description": "An opaque id."}
SECONDS: Schema = {"type": "number", "description": "Seconds from the start of the video."}
COLLECTION: Schema = {"type": "string", "description": "Id of a collection; the first by default."}


def document() -> dict[str, Any]:
    """Returns the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hbi-infer",
            "version": __version__,
            "description": "Searches folders of videos. Errors are problem documents (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}, {"session": []}],
        "paths": {**_library_paths(), **_media_paths(), **_task_paths(), **_index_paths(), **_other_paths()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "hbi-8000"},
            },
            "responses": {
                "problem": {
                    "description": "A problem",
                    "content": {"application/problem+json": {"schema": _ref("Problem")}},
                }
            },
        },
    }


def _object(properties: dict[str, Schema], *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        **more,
    }


def _fields(properties: dict[str, Schema], *required: str) -> Schema:
    """Returns the schema of a body in which only some fields are required, and no others are taken."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(summary: str, answer: Schema, *parameters: Schema, kind: str = "application/json") -> Schema:
    return {"get": _operation(summary, answer, kind) | {"parameters": list(parameters)}}


def _post(summary: str, body: Schema, example: Any, answer: Schema, status: str = "200") -> Schema:
    content = {"application/json": {"schema": body, "example": example}}
    operation = _operation(summary, answer, status=status)
    return {"post": operation | {"requestBody": {"required": True, "content": content}}}


def _operation(summary: str, answer: Schema, kind: str = "application/json", status: str = "200") -> Schema:
    done = {"description": "Done", "content": {kind: {"schema": answer}}}
    return {"summary": summary, "responses": {status: done, "default": {"$ref": "#/components/responses/problem"}}}


def _in_query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": ID}


def _library_paths() -> Schema:
    collection = _in_query("collection", COLLECTION)
    pages = (_in_query("offset", WHOLE), _in_query("limit", WHOLE), _in_query("q", TEXT))
    collections = _object({"collections": _list(_ref("Collection")), "needs_token": TRUTH})
    videos = _object({"videos": _list(_ref("Video")), "total": WHOLE})
    failures = _object({"failures": _list(_object({"path": TEXT, "reason": TEXT}))})
    return {
        "/v1/collections": _get("Lists the served folders, each with each model", collections),
        "/v1/videos": _get("Lists the indexed videos, in order of path", videos, collection, *pages),
        "/v1/videos/{id}": _get("Describes a video and its clips", _ref("VideoWithClips"), _in_path("id"), collection),
        "/v1/failures": _get("Lists files that could not be indexed", failures, collection),
    }


def _media_paths() -> Schema:
    binary: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
    of_one = (_in_path("id"), _in_query("collection", COLLECTION))
    playable = _in_query("format", {"enum": ["mp4"], "description": "What browsers play; converted where needed."})
    size = (_in_query("at", SECONDS), _in_query("width", WHOLE))
    return {
        "/v1/videos/{id}/stream": _get("Gives a video, or a range of it", binary, *of_one, playable, kind="video/*"),
        "/v1/clips/{id}/thumbnail": _get("Gives the picture of a clip", binary, *of_one, *size, kind="image/jpeg"),
        "/v1/clips/{id}/moment": _get("Gives a clip as a video of its own", binary, *of_one, kind="video/*"),
    }


def _task_paths() -> Schema:
    about = {"collection": COLLECTION, "video": ID}
    answer = _fields({**about, "question": TEXT, "top_k": WHOLE, "all_clips": TRUTH}, "video", "question")
    caption = _fields({**about, "clip": ID}, "video")
    explain = _fields({**about, "query": TEXT, "clip": ID}, "video", "query")
    captions = _object({"video": ID, "captions": _list(_ref("Caption"))})
    embed = _fields(
        {
            "input": {"anyOf": [TEXT, _list(TEXT)], "description": "Texts, or pictures as data URLs in base64."},
            "model": {**TEXT, "description": "Name or hash of a served model."},
            "collection": COLLECTION,
            "encoding_format": {"enum": ["float", "base64"]},
            "user": TEXT,
        },
        "input",
    )
    query = {"query": "a red circle moves left", "top_k": 2}
    search = _post("Finds moments", _ref("Search"), query, _ref("Found"))
    form = _fields({"picture": {"type": "string", "contentMediaType": "image/*"}, "options": _ref("Search")}, "picture")
    search["post"]["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    asked = {"video": "VIDEO", "question": "what colour is it?"}
    return {
        "/v1/search": search,
        "/v1/answer": _post("Answers a question about a video", answer, asked, _ref("Answer")),
        "/v1/caption": _post("Writes a caption for each clip of a video", caption, {"video": "VIDEO"}, captions),
        "/v1/explain": _post(
            "Says what words and frames are worth together",
            explain,
            {"video": "VIDEO", "query": "a red circle"},
            _ref("Explanation"),
        ),
        "/v1/embeddings": _post(
            "Gives pooled vectors, in the shape of OpenAI", embed, {"input": ["a red circle"]}, _ref("Embeddings")
        ),
    }


def _index_paths() -> Schema:
    collection = _in_query("collection", COLLECTION)
    action = _fields({"collection": COLLECTION, "action": {"enum": ["start", "stop"]}}, "action")
    state = _get("Says how an update goes on", _ref("IndexState"), collection)
    start = _post("Starts or stops an update", action, {"action": "start"}, _ref("IndexState"), "202")
    events = _get("Tells of an update as it goes on", TEXT, collection, kind="text/event-stream")
    return {"/v1/index": state | start, "/v1/index/events": events}


def _other_paths() -> Schema:
    return {
        "/v1/openapi.json": _get("Gives this document", {"type": "object"}),
        "/health/live": _get("Says that the service runs", TEXT, kind="text/plain"),
        "/health/ready": _get("Says whether requests are answered", TEXT, kind="text/plain"),
        "/metrics": _get("Gives metrics as Prometheus takes them", TEXT, kind="text/plain"),
    }


def _schemas() -> dict[str, Schema]:
    return {**_schemas_of_library(), **_schemas_of_search(), **_schemas_of_tasks()}


def _schemas_of_library() -> dict[str, Schema]:
    video = {
        "id": ID,
        "path": {**TEXT, "description": "Path relative to the folder."},
        "duration_seconds": _or_null(NUMBER),
        "clips": WHOLE,
        "modified": {**TEXT, "format": "date-time"},
        "stream": TEXT,
    }
    clips = _list(_object({"id": ID, "start_seconds": SECONDS, "end_seconds": SECONDS}))
    counts = dict.fromkeys(("done", "total", "failed", "clips"), WHOLE)
    return {
        "Problem": _object({"type": TEXT, "title": TEXT, "status": WHOLE, "detail": TEXT}),
        "Collection": _object(
            {
                "id": ID,
                "name": TEXT,
                "model": _object({"name": TEXT, "sha256": TEXT}),
                "tasks": _list({"enum": ["retrieve", "qa", "caption", "interaction"]}),
                "clips": WHOLE,
                "videos": WHOLE,
                "notice": TEXT,
                "clip_seconds": NUMBER,
                "min_match": NUMBER,
            }
        ),
        "Video": _object(video),
        "VideoWithClips": _object(video | {"clips": clips}),
        "IndexState": _object({"running": TRUTH, "waiting": TRUTH, **counts, "current": TEXT, "error": TEXT}),
    }


def _schemas_of_search() -> dict[str, Schema]:
    filters = {"folder": TEXT, "path_glob": TEXT, "min_seconds": NUMBER, "max_seconds": NUMBER}
    filters |= {"newer_than": TEXT, "older_than": TEXT}
    moment = {"path": TEXT, "video": ID, "clip": ID, "start_seconds": SECONDS, "end_seconds": SECONDS}
    match = {
        **moment,
        "rank": WHOLE,
        "score": NUMBER,
        "best_frame_seconds": _list(SECONDS),
        "best_seconds": SECONDS,
        "video_seconds": _or_null(NUMBER),
        "match": _or_null(NUMBER),
        "unfamiliar": TRUTH,
        "thumbnail": TEXT,
        "stream": TEXT,
        "copies": _list(_object(moment)),
    }
    query: Schema = {"anyOf": [TEXT, _list(TEXT), {"type": "null"}]}
    found = {"query": query, "results": _list(_ref("Match")), "left_out": WHOLE}
    return {
        "Search": _fields(
            {
                "collection": COLLECTION,
                "query": query,
                "like_clip": _or_null(ID),
                "without": {"anyOf": [TEXT, _list(TEXT)]},
                "top_k": {**WHOLE, "default": 24},
                "offset": {**WHOLE, "default": 0},
                "all_clips": {**TRUTH, "default": False},
                "min_match": {**NUMBER, "default": 0.0},
                "dedupe": {"enum": ["off", "same", "near"], "default": "same"},
                "filter": _fields(filters),
            }
        ),
        "Match": _object(match),
        "Found": _object(found | {"next_offset": _or_null(WHOLE), "notes": _list(TEXT)}),
    }


def _schemas_of_tasks() -> dict[str, Schema]:
    clip = {"clip": ID, "start_seconds": SECONDS, "end_seconds": SECONDS, "unfamiliar": TRUTH}
    answers = _list(_object({"answer": TEXT, "probability": NUMBER}))
    one_answer = {"answers": answers, "confident": TRUTH, **clip}
    embedding = _object({"object": TEXT, "index": WHOLE, "embedding": {"anyOf": [_list(NUMBER), TEXT]}})
    explanation = {
        "query": TEXT,
        "video": TEXT,
        "video_id": ID,
        "clip": WHOLE,
        "clip_id": ID,
        "num_clips": WHOLE,
        "start_seconds": SECONDS,
        "end_seconds": SECONDS,
        "score": NUMBER,
        "words": _list(TEXT),
        "frame_seconds": _list(SECONDS),
        "frames": _list(TEXT),
        "levels": _list({"type": "object"}),
        "remarks": _list(TEXT),
    }
    return {
        "Answer": _object(
            {"question": TEXT, "video": ID, **one_answer, "clips": _list(_object(one_answer))}, optional=("clips",)
        ),
        "Caption": _object({**clip, "caption": TEXT, "log_probability": NUMBER, "complete": TRUTH}),
        "Explanation": _object(explanation),
        "Embeddings": _object(
            {
                "object": TEXT,
                "data": _list(embedding),
                "model": TEXT,
                "usage": _object({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
                "pooling": TEXT,
            }
        ),
    }
