"""The differences between kinds of tokenizers, and the checks of the JSON that each is built from.

A tokenizer's JSON can describe anything that the `tokenizers` library can do, also a normaliser that makes a text grow
without end. So only the vocabulary is taken from it: each kind is built anew from its parts, and all that the JSON says
besides must be what the kind built anew says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

PADDED_LENGTH_LIMIT = 2**16


@dataclass(frozen=True)
class BuiltTokenizer:
    """A tokenizer of one kind.

    Attributes:
        backend: Cuts a cleaned text into tokens, without those that begin and end it.
        start: Token that begins every text; None if none does.
        end: Token that ends every text.
        pad_id: Id at unused positions.
        length: Number of tokens that every text is padded to; None for that of the longest text of a batch.
        clean: Cleans a text before it is cut.
        pieces: Returns tokens as people read them, one text for each.
        text: Returns the text that tokens stand for.
    """

    backend: tokenizers.Tokenizer
    start: str | None
    end: str
    pad_id: int
    length: int | None
    clean: Callable[[str], str]
    pieces: Callable[[Sequence[str]], list[str]]
    text: Callable[[Sequence[str]], str]


def plain(text: str) -> str:
    """Returns a text without runs of blanks, and without halves of surrogate pairs, which are no characters."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def check_template(document: dict[str, Any], backend: tokenizers.Tokenizer) -> None:
    """Checks a tokenizer's JSON, without its vocabulary, against a tokenizer that was built from the known parts.

    Raises:
        ValueError: It says something else; the message says where.
    """
    if difference := _difference(document, json.loads(backend.to_str()), ""):
        raise ValueError(difference)


def check_ids(vocabulary: Any, needed: Iterable[str]) -> None:
    """Checks that tokens have the ids from 0 on, each once, and that some are among them.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(vocabulary, dict):
        raise ValueError(f"its vocabulary is {vocabulary!r:.80}; it must be an object")
    if missing := [token for token in needed if token not in vocabulary]:
        raise ValueError(f"it has no {' or no '.join(missing)}")
    if {*map(type, vocabulary.values())} != {int} or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"the ids of its {len(vocabulary):,} tokens are not the numbers from 0 on, each once")


def padded_length(document: dict[str, Any]) -> int | None:
    """Returns the number of tokens that a tokenizer's JSON pads every text to; None if it says of none.

    Raises:
        ValueError: It is no such number.
    """
    padding = document.get("padding")
    if padding is None:
        return None
    length = padding["strategy"]["Fixed"]
    if type(length) is not int or not 2 <= length <= PADDED_LENGTH_LIMIT:
        raise ValueError(f"padding.strategy.Fixed is {length!r:.80}; it must be from 2 to {PADDED_LENGTH_LIMIT:,}")
    return length


def _difference(found: Any, expected: Any, where: str) -> str:
    """Returns how a JSON value differs from the one that is expected; empty if it does not, or only lacks keys."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() <= expected.keys():
        parts = (_difference(found[key], expected[key], f"{where}.{key}".lstrip(".")) for key in found)
        return next(filter(None, parts), "")
    return "" if found == expected else f"{where or 'the document'} is {found!r:.80}; it must be {expected!r:.80}"
