"""Searches of a request: what it asks for, and the document that it gets."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hbi_infer.index.clip_tokens import VideoTokens, indexed_tokens, photo_tokens
from hbi_infer.model.token_model import TokenModel
from hbi_infer.options import Filter, Searching
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.library import Collection, ServedVideo, clip_id, shown_path
from hbi_infer.serve.problems import bad_input
from hbi_infer.serve.settings import Limits
from hbi_infer.tasks.search import Match, is_well_matched, like, search, search_all
from hbi_infer.tasks.texts import EncodedTexts

FIELDS = (
    "collection", "query", "like_clip", "without", "top_k", "offset", "all_clips", "min_match", "dedupe", "filter",
)  # fmt: skip
FILTER_FIELDS = ("folder", "path_glob", "min_seconds", "max_seconds", "newer_than", "older_than")
MOST_SECONDS = 1e9
THUMBNAIL_WIDTH = 320
PICTURE_SECONDS = 20.0
"""Time for decoding a picture."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A search that a request asks for.

    Attributes:
        collection: Id of the collection; None for the first.
        query: Sentences, which a clip must all match.
        is_single: Whether the query was given as one text.
        like_clip: Id of a clip that results should be like.
        top_k: Number of results of this page.
        offset: Number of results before it.
        min_match: Least match of a result.
        options: How to search, for all pages up to this one.
    """

    collection: str | None = None
    query: tuple[str, ...] = ()
    is_single: bool = True
    like_clip: str | None = None
    top_k: int = 24
    offset: int = 0
    min_match: float = 0.0
    options: Searching = field(default_factory=Searching)

    @classmethod
    def read(cls, document: dict[str, Any], limits: Limits, *, has_picture: bool = False) -> Asked:
        """Reads the document of a request.

        Raises:
            Problem: A field is wrong, or not just one of query, like_clip and a picture is given.
            InputError: The options do not go together.
        """
        fields = Fields(document, FIELDS)
        query = fields.texts("query", most=limits.text_letters, most_texts=limits.texts)
        if not all(text.strip() for text in query):
            raise bad_input("a query is empty: give a sentence that says what to find")
        like_clip = fields.text_or_none("like_clip", most=100)
        if [bool(query), like_clip is not None, has_picture].count(True) != 1:
            raise bad_input("give one of query, like_clip and a picture")
        top_k = fields.whole("top_k", 24, least=1, most=limits.results)
        offset = fields.whole("offset", 0, least=0, most=limits.offset)
        return cls(
            collection=fields.text_or_none("collection", most=100),
            query=tuple(query),
            is_single=not isinstance(document.get("query"), list),
            like_clip=like_clip,
            top_k=top_k,
            offset=offset,
            min_match=fields.number("min_match", 0.0, least=0.0, most=1.0) or 0.0,
            options=Searching(
                top_k=offset + top_k + 1,  # one more tells whether there is a next page
                where=read_filter(fields.fields("filter", FILTER_FIELDS)),
                all_clips=fields.truth("all_clips", False),
                without=tuple(fields.texts("without", most=limits.text_letters, most_texts=limits.texts)),
                dedupe=fields.choice("dedupe", "same", ("off", "same", "near")),  # type: ignore[arg-type]
            ),
        )


def read_filter(fields: Fields) -> Filter:
    """Reads the conditions on videos.

    Raises:
        Problem: A field is wrong.
    """
    return Filter(
        path_glob=fields.text_or_none("path_glob", most=500),
        folder=fields.text_or_none("folder", most=500),
        min_seconds=fields.number("min_seconds", None, least=0, most=MOST_SECONDS),
        max_seconds=fields.number("max_seconds", None, least=0, most=MOST_SECONDS),
        newer_than=fields.moment("newer_than"),
        older_than=fields.moment("older_than"),
    )


def search_texts(collection: Collection, asked: Asked, texts: EncodedTexts) -> dict[str, Any]:
    """Searches for sentences; returns the document of the response."""
    index = collection.index
    is_one = len(texts) == 1
    matches = search(index, texts, asked.options)[0] if is_one else search_all(index, texts, asked.options)
    notes = [
        f"{text[:60]!r} is too long for the model: it was cut at word {word}"
        for text, word in zip(texts.texts, texts.cut_at_words, strict=True)
        if word is not None
    ]
    query = texts.texts[0] if asked.is_single else list(texts.texts)
    return {"query": query} | _page(collection, asked, matches, notes)


def search_like(collection: Collection, asked: Asked, tokens: VideoTokens) -> dict[str, Any]:
    """Searches for clips like a picture, or like the clips of a video; returns the document of the response."""
    return {"query": None} | _page(collection, asked, like(collection.index, tokens, asked.options), [])


def tokens_of_clip(video: ServedVideo, start_seconds: float, target: Collection) -> VideoTokens:
    """Returns the tokens of one clip, to search a collection for others like it.

    Raises:
        Problem: The collection is of another model.
    """
    if target.model is not video.collection.model:
        raise bad_input("like_clip is of a collection of another model: search a collection of the same one")
    tokens = indexed_tokens(video.collection.index, video.entry.path)
    own = tuple(clip for clip in tokens.clips if clip.start_seconds == start_seconds)
    return replace(
        tokens,
        clips=own or tokens.clips,
        indexed_path=tokens.indexed_path if target is video.collection else None,
    )


def tokens_of_picture(model: TokenModel, content: bytes) -> VideoTokens:
    """Returns the tokens of the picture of a request.

    Raises:
        VideoError: It cannot be read.
    """
    # Under a name of ours, in a folder that only this user can enter.
    with tempfile.TemporaryDirectory(prefix="hbi-picture-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        return photo_tokens(model, path, timeout_seconds=PICTURE_SECONDS)


def thumbnail_url(clip: str, seconds: float, width: int = THUMBNAIL_WIDTH) -> str:
    """Returns the address of the picture of a clip at a time."""
    return f"/v1/clips/{clip}/thumbnail?at={round(seconds, 3)}&width={width}"


def _page(collection: Collection, asked: Asked, matches: list[Match], notes: list[str]) -> dict[str, Any]:
    """Returns the results of a page, and what is said about the others."""
    kept = [match for match in matches if is_well_matched(match, asked.min_match)]
    end = asked.offset + asked.top_k
    if any(match.unfamiliar for match in kept[asked.offset : end]):
        notes.append("some results are unlike all that the model was trained on: do not rely on their scores")
    return {
        "results": [_result(collection, match, rank) for rank, match in enumerate(kept[:end], 1)][asked.offset :],
        "left_out": len(matches[:end]) - len(kept[:end]),
        "next_offset": end if len(kept) > end else None,
        "notes": notes,
    }


def _result(collection: Collection, match: Match, rank: int) -> dict[str, Any]:
    path = collection.relative(match.path)
    video = collection.video_id(path)
    clip = clip_id(video, match.start_seconds)
    middle = (match.start_seconds + match.end_seconds) / 2
    best = match.best_frame_seconds[0] if match.best_frame_seconds else middle
    return match.to_json() | {
        "rank": rank,
        "path": shown_path(path),
        "video": video,
        "clip": clip,
        "thumbnail": thumbnail_url(clip, best),
        "stream": f"/v1/videos/{video}/stream",
        "best_seconds": best,
        "copies": [_copy(collection, copy.path, copy.start_seconds, copy.end_seconds) for copy in match.copies],
    }


def _copy(collection: Collection, path: Path, start_seconds: float, end_seconds: float) -> dict[str, Any]:
    relative = collection.relative(path)
    video = collection.video_id(relative)
    return {
        "path": shown_path(relative),
        "video": video,
        "clip": clip_id(video, start_seconds),
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
    }
