"""Fields of a request: what is taken, and what is said of what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbi_infer.serve.fields import Fields, read_object
from hbi_infer.serve.problems import Problem

KNOWN = ("top_k", "query", "min_match", "all_clips", "newer_than", "filter", "dedupe")
WAYS: dict[str, Callable[[Fields], Any]] = {
    "top_k": lambda fields: fields.whole("top_k", 1, least=1, most=10),
    "query": lambda fields: fields.texts("query", most=5, most_texts=2),
    "min_match": lambda fields: fields.number("min_match", None, least=0, most=1),
    "all_clips": lambda fields: fields.truth("all_clips", False),
    "newer_than": lambda fields: fields.moment("newer_than"),
    "filter": lambda fields: fields.fields("filter", ("folder",)),
    "dedupe": lambda fields: fields.choice("dedupe", "same", ("off", "same")),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 0), ("top_k", 11), ("top_k", 1.5), ("top_k", "1"), ("top_k", True), ("top_k", 10**400),
        ("top_k", 1e308), ("query", 3), ("query", [1]), ("query", "a" * 6), ("query", ["a", "b", "c"]),
        ("query", "\ud800"), ("min_match", 1.1), ("min_match", float("nan")), ("all_clips", 1), ("newer_than", 3),
        ("newer_than", "soon"), ("filter", []), ("filter", {"folders": "a"}), ("dedupe", "all"), ("dedupe", []),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    with pytest.raises(Problem) as caught:
        WAYS[name](Fields({name: value}, KNOWN))
    assert caught.value.status == 400
    assert name in caught.value.detail or "folder" in caught.value.detail
    assert len(caught.value.detail) < 300


def test_what_is_taken() -> None:
    fields = Fields({"top_k": 3, "query": "red", "min_match": 0, "newer_than": "2026-05-31", "filter": {}}, KNOWN)
    assert WAYS["top_k"](fields) == 3
    assert WAYS["query"](fields) == ["red"]
    assert WAYS["min_match"](fields) == 0.0
    assert WAYS["newer_than"](fields).year == 2026
    assert WAYS["all_clips"](fields) is False
    assert fields.text_or_none("dedupe", most=9) is None


def test_numbers_of_an_address_are_texts() -> None:
    fields = Fields({"top_k": "3", "all_clips": "true"}, KNOWN, are_texts=True)
    assert (WAYS["top_k"](fields), WAYS["all_clips"](fields)) == (3, True)
    for wrong in ("x", "", "1" * 50, "inf", "nan"):
        with pytest.raises(Problem, match="top_k"):
            WAYS["top_k"](Fields({"top_k": wrong}, KNOWN, are_texts=True))


def test_an_unknown_field_gets_the_nearest_name() -> None:
    with pytest.raises(Problem, match="did you mean query"):
        Fields({"querry": 1}, KNOWN)
    with pytest.raises(Problem, match="the body has no query: give it"):
        Fields({}, KNOWN).text("query", most=3)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # the first text takes seconds
@given(
    st.dictionaries(st.sampled_from(KNOWN), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text()))
)
def test_anything_is_taken_or_refused(given_fields: dict[str, Any]) -> None:
    for way in WAYS.values():
        try:
            way(Fields(given_fields, KNOWN))
        except Problem as problem:
            assert problem.status == 400  # noqa: PT017


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        assert isinstance(read_object(content), dict)
    except Problem as problem:
        assert problem.status == 400  # noqa: PT017
