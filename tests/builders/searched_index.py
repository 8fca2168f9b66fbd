"""A folder of coloured videos to search, and a search of several queries."""

from __future__ import annotations

from typing import Any

from hbi_infer.api import Index
from hbi_infer.options import Searching
from hbi_infer.tasks import search as task
from hbi_infer.tasks.search import Match
from hbi_infer.tasks.texts import encode_texts

VIDEOS = {
    "red.mp4": ["red"],
    "copies/red_too.mp4": ["red"],
    "green_then_blue.mp4": ["green", "blue"],
    "long.mp4": ["blue"] * 6,
}


def search(index: Index, queries: list[str], **options: Any) -> list[list[Match]]:
    """Searches for each query; copies are results of their own unless the options say otherwise."""
    searching = Searching(**{"dedupe": "off", **options})
    return task.search(index, encode_texts(index.encoder, queries, "query"), searching)


def names(matches: list[Match]) -> list[str]:
    return [match.path.name for match in matches]
