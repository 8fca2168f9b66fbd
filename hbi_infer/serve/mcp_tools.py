"""The tools of the Model Context Protocol: what they take, and what they give of what the routes give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool, ToolAnnotations

from hbi_infer.serve.fields import Fields
from hbi_infer.serve.search_routes import searched
from hbi_infer.serve.searching import Asked
from hbi_infer.serve.service import Service
from hbi_infer.serve.task_routes import answered, captioned, explained

USUAL_PICTURES, MOST_PICTURES = 4, 12
USUAL_RESULTS, MOST_RESULTS = 5, 50
STRONGEST_PAIRS = 8
"""Number of pairs of words and frames that are told of each level of an explanation."""

_ADDRESSES = frozenset({"thumbnail", "stream", "frames"})
"""Fields of the routes that a client of tools has no use for."""

Schema = dict[str, Any]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """The result of a tool.

    Attributes:
        document: Document that is told.
        moments: Clips and times in them, in seconds, to show pictures of; None for a clip's middle.
    """

    document: dict[str, Any]
    moments: list[tuple[str, float | None]]


@dataclass(frozen=True)
class ServedTool:
    """A tool.

    Attributes:
        title: Name for people.
        description: Description of what it does, for a language model.
        properties: Its arguments.
        required: Names of those that must be given.
        call: Does it.
    """

    title: str
    description: str
    properties: dict[str, Schema]
    required: tuple[str, ...]
    call: Callable[[Service, Arguments], Awaitable[Found]]

    def listed(self, name: str) -> Tool:
        """Returns what is said of the tool."""
        properties = self.properties | {"pictures": _PICTURES, "collection": _COLLECTION}
        return Tool(
            name=name,
            title=self.title,
            description=self.description,
            input_schema={
                "type": "object",
                "properties": properties,
                "required": list(self.required),
                "additionalProperties": False,
            },
            annotations=ToolAnnotations(
                read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
            ),
        )


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _whole(description: str, default: int, most: int, least: int = 1) -> Schema:
    return {"type": "integer", "description": description, "default": default, "minimum": least, "maximum": most}


_PICTURES = _whole("Number of pictures to show.", USUAL_PICTURES, MOST_PICTURES, least=0)
_COLLECTION = _text("Id of a collection, as the instructions list them; the first by default.")
_VIDEO = _text("Id of a video, from a result of search.")
_CLIP = _text("Id of a clip of the video, from a result of search; by default all of the video.")


async def _search(service: Service, arguments: Arguments) -> Found:
    limits = service.options.limits
    fields = Fields(arguments, _SEARCH.properties.keys() | {"collection"}, "search")
    document = {name: value for name, value in arguments.items() if name != "folder"}
    collection = service.library.collection(fields.text_or_none("collection", most=100))
    document.setdefault("top_k", USUAL_RESULTS)
    document.setdefault("min_match", collection.model.bundle.manifest.min_match)
    if arguments.get("folder") is not None:
        document["filter"] = {"folder": arguments["folder"]}
    found = await searched(service, Asked.read(document, limits))
    results = [_bare(result) for result in found["results"]]
    moments = [(result["clip"], result["best_seconds"]) for result in results]
    return Found(found | {"results": results}, moments)


async def _ask(service: Service, arguments: Arguments) -> Found:
    found = await answered(service, arguments)
    return Found(found, [(found["clip"], None)])


async def _caption(service: Service, arguments: Arguments) -> Found:
    found = await captioned(service, arguments)
    return Found(found, [(caption["clip"], None) for caption in found["captions"]])


async def _explain(service: Service, arguments: Arguments) -> Found:
    found = await explained(service, arguments)
    levels = [told_level(level) for level in found["levels"]]
    seconds = [second for level in levels for pair in level["strongest"] for second in pair["seconds"]]
    moments: list[tuple[str, float | None]] = [(found["clip_id"], second) for second in dict.fromkeys(seconds)]
    words = {name: found["word_map"][name] for name in ("sentence", "meaning", "phrases")}
    return Found(_bare(found) | {"levels": levels, "word_map": words}, moments)


def told_level(level: dict[str, Any]) -> dict[str, Any]:
    """Returns the pairs of words and frames of a level that are worth most together."""
    pairs = [
        {"words": words, "seconds": seconds, "interaction": worth}
        for words, row in zip(level["words"], level["interaction"], strict=True)
        for seconds, worth in zip(level["frames"], row, strict=True)
    ]
    strongest = sorted(pairs, key=lambda pair: -pair["interaction"])[:STRONGEST_PAIRS]
    return {name: level[name] for name in ("name", "rate", "similarity")} | {"strongest": strongest}


def _bare(document: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the addresses of a document."""
    return {name: value for name, value in document.items() if name not in _ADDRESSES}


_SEARCH = ServedTool(
    "Search videos",
    "Finds the moments in a folder of videos that show what a sentence describes. Gives ids for the other tools, times "
    "in seconds, a match from 0 to 1, and the best frame of each moment. What matches no better than any sentence "
    "would is left out, and counted in left_out.",
    {
        "query": _text("A sentence that says what is to be seen."),
        "without": {"type": "array", "items": {"type": "string"}, "description": "What is not to be seen."},
        "top_k": _whole("Number of results.", USUAL_RESULTS, MOST_RESULTS),
        "offset": _whole("Number of results to skip.", 0, 1000, least=0),
        "min_match": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Least match of a result; by default what the model needs to be sure. 0 gives all.",
        },
        "all_clips": {"type": "boolean", "default": False, "description": "Several moments of one video, too."},
        "folder": _text("A folder within the collection."),
    },
    ("query",),
    _search,
)

TOOLS: dict[str, ServedTool] = {
    "search": _SEARCH,
    "ask": ServedTool(
        "Ask about a video",
        "Answers a question about a video out of a closed list of short answers, with probabilities.",
        {
            "question": _text("The question."),
            "video": _VIDEO,
            "top_k": _whole("Number of answers.", 3, MOST_RESULTS),
            "all_clips": {"type": "boolean", "default": False, "description": "An answer of each clip, too."},
        },
        ("question", "video"),
        _ask,
    ),
    "caption": ServedTool(
        "Caption a video",
        "Writes a sentence for each clip of a video, or for one of them.",
        {"video": _VIDEO, "clip": _CLIP},
        ("video",),
        _caption,
    ),
    "explain": ServedTool(
        "Explain a match",
        "Says which words and which frames of a clip belong together, by their exact Banzhaf interaction, and shows "
        "the frames that count most.",
        {
            "query": _text("The sentence that the clip was found with."),
            "video": _VIDEO,
            "clip": _text("Id of a clip of the video; by default the one that matches best."),
        },
        ("query", "video"),
        _explain,
    ),
}
