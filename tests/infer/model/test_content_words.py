"""Words as people read them, and which of them say what can be seen."""

from __future__ import annotations

import pytest

from hbi_infer.model.content_words import function_words, words_of
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_json(clip_tokenizer_json())


@pytest.mark.parametrize(
    ("text", "words", "content"),
    [
        ("A red circle moves left.", ["a", "red", "circle", "moves", "left"], ["red", "circle", "moves", "left"]),
        ("two wobblers, then nothing", ["two", "wobblers", "then", "nothing"], ["two", "wobblers", "nothing"]),
        ("while it is on", ["while", "it", "is", "on"], []),
        ("...!", [], []),
    ],
)
def test_words_are_joined_and_told_apart(tokenizer: Tokenizer, text: str, words: list[str], content: list[str]) -> None:
    batch = tokenizer.encode([text], max_words=32)
    found = words_of(tokenizer.pieces(batch.ids[0, batch.mask[0]].tolist()))
    assert [word.text for word in found] == words
    assert [word.text for word in found if word.has_content] == content


def test_places_are_those_of_the_tokens() -> None:
    pieces = ["[start]", "the", "wob·", "blers", ",", "hop", "[end]"]
    assert [(word.text, word.places) for word in words_of(pieces)] == [
        ("the", (1,)),
        ("wobblers", (2, 3)),
        ("hop", (5,)),
    ]


def test_a_word_that_was_cut_is_a_word() -> None:
    assert [(word.text, word.places) for word in words_of(["[start]", "wob·", "[end]"])] == [("wob", (1,))]


def test_a_token_of_the_whole_text_is_told_from_words() -> None:
    assert [word.is_sentence for word in words_of(["[sentence]", "dog", "[end]"])] == [True, False]


def test_directions_say_what_can_be_seen() -> None:
    assert function_words().isdisjoint({"left", "right", "up", "down", "still", "two", "red", "running"})
    assert {"a", "the", "while", "before", "and"} <= function_words()
