"""Options that cannot be, and the names by which users take them."""

from __future__ import annotations

from typing import Any

import pytest

import hbi_infer
from hbi_infer.errors import InputError
from hbi_infer.options import Decoding, Explaining, Finding, FrameSampling, Searching


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Searching, {"top_k": 0}, "top_k is 0; it must be at least 1"),
        (Searching, {"shortlist": 0}, "shortlist is 0; it must be at least 1"),
        (Searching, {"rerank": -1}, "rerank is -1; it must be at least 0"),
        (Searching, {"without": "red"}, r"without is 'red'; give several texts, such as \('red',\)"),
        (Searching, {"without": ("red", " ")}, "a text of without is empty: give a sentence"),
        (Searching, {"without": ("red",), "rerank": 2}, "rerank is 2 and without is given"),
        (Searching, {"dedupe": "some"}, "dedupe is 'some'; choose one of: off, same, near"),
        (Explaining, {"clip": 1, "at_seconds": 2.0}, "clip and at_seconds are both given"),
        (FrameSampling, {"clip_seconds": 0.0}, "clip_seconds is 0.0; it must be greater than 0"),
        (FrameSampling, {"resize_to": 0}, "resize_to is 0; it must be greater than 0"),
        (FrameSampling, {"fit": "stretch"}, "fit is 'stretch'; choose one of: crop, squash, pad"),
        (Finding, {"exclude": "*.gif"}, r"exclude is '\*\.gif'; give several patterns, such as \('\*\.gif',\)"),
        (Decoding, {"nucleus": 0.5}, "drawing from a nucleus needs a beam_size of 1"),
    ],
)
def test_options_that_cannot_be(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**options)


def test_captions_fit_the_model() -> None:
    assert Decoding(max_tokens=40).within(8).max_tokens == 7
    assert Decoding(max_tokens=3).within(8).max_tokens == 3


@pytest.mark.parametrize(
    "name", ["HBI", "Index", "Answering", "Decoding", "Explaining", "Filter", "Finding", "Searching"]
)
def test_public_names(name: str) -> None:
    assert getattr(hbi_infer, name).__name__ == name
