from __future__ import annotations

from typing import Any

import pytest

from hbi_infer.model.built_tokenizer import check_ids, check_template, padded_length, plain


@pytest.mark.parametrize(
    ("text", "expected"), [("  A\tdog \n runs ", "A dog runs"), ("half a pair \ud83d", "half a pair ?"), ("", "")]
)
def test_plain_joins_blanks_and_drops_halves_of_pairs(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ([1], r"its vocabulary is \[1\]; it must be an object"),
        ({"a": 0}, "it has no b"),
        ({"a": 0, "b": 2}, "are not the numbers from 0 on"),
        ({"a": 0, "b": 0}, "are not the numbers from 0 on"),
        ({"a": False, "b": 1}, "are not the numbers from 0 on"),
    ],
)
def test_vocabularies_whose_ids_cannot_be(vocabulary: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_ids(vocabulary, ("a", "b"))
    check_ids({"b": 1, "a": 0}, ("a", "b"))


@pytest.mark.parametrize("length", [1, 0, -3, 2**16 + 1, True, 64.0, "64"])
def test_lengths_that_no_text_is_padded_to(length: Any) -> None:
    with pytest.raises(ValueError, match=r"padding\.strategy\.Fixed is "):
        padded_length({"padding": {"strategy": {"Fixed": length}}})
    assert padded_length({"padding": {"strategy": {"Fixed": 64}}}) == 64
    assert padded_length({"padding": None}) is None


def test_a_document_that_says_more_than_its_template() -> None:
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    check_template({"normalizer": None}, backend)
    with pytest.raises(ValueError, match=r"normalizer is \{'type': 'Lowercase'\}; it must be None"):
        check_template({"normalizer": {"type": "Lowercase"}}, backend)
