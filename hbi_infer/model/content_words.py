"""The words of a text as people read them: their tokens joined, and which of them say what can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

MARKS = ("[start]", "[end]")
SENTENCE = "[sentence]"
"""Piece of a token that stands for the whole text, as the first one of some models does."""
CONTINUES = "·"
"""Last character of a piece that does not end its word; see `Tokenizer.pieces`."""


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: The word.
        places: Positions of its tokens in the text.
        has_content: Whether it says what can be seen: no article, pronoun, preposition or the like.
    """

    text: str
    places: tuple[int, ...]
    has_content: bool

    @property
    def is_sentence(self) -> bool:
        """Whether it is no word but a token of the whole text."""
        return self.text == SENTENCE


def words_of(pieces: Sequence[str]) -> list[Word]:
    """Joins the pieces of a text, as `Tokenizer.pieces` writes them, to words; marks and punctuation are left out.

    >>> [(word.text, word.places) for word in words_of(["[start]", "the", "wob·", "blers", "[end]"])]
    [('the', (1,)), ('wobblers', (2, 3))]
    """
    words, letters, places = [], "", []
    for place, piece in enumerate(pieces):
        if piece in MARKS:
            continue
        letters += piece.removesuffix(CONTINUES)
        places.append(place)
        if piece.endswith(CONTINUES) and place + 1 < len(pieces) and pieces[place + 1] not in MARKS:
            continue
        if any(map(str.isalnum, letters)):
            words.append(Word(letters, tuple(places), letters.lower() not in function_words()))
        letters, places = "", []
    return words


@cache
def function_words() -> frozenset[str]:
    """Returns the English words that hold a sentence together and say nothing that can be seen."""
    text = resources.files("hbi_infer").joinpath("data/function_words.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
