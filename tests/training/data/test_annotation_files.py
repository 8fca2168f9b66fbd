"""Files that others wrote are read as they are, and every fault names the file and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hbi_infer.errors import DataError
from hbi_training.data.annotation_files import field, parse_json, read_csv, read_json, read_lines, read_text, seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_byte_order_mark_and_blank_lines_are_passed_over(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  \ntwo")
    assert read_text(path).startswith("one")
    assert list(read_lines(path)) == [(f"{path}, line 1", "one"), (f"{path}, line 4", "two")]


def test_rows_of_a_csv_have_their_columns_by_name(path: Path) -> None:
    path.write_text('video,other,sentence\na.mp4,1,"one, and\ntwo"\nb.mp4,2,three\n')
    assert list(read_csv(path, ["video", "sentence"])) == [
        (f"{path}, line 3", {"video": "a.mp4", "sentence": "one, and\ntwo"}),
        (f"{path}, line 4", {"video": "b.mp4", "sentence": "three"}),
    ]


@pytest.mark.parametrize(
    ("content", "read", "message"),
    [
        (None, read_text, "file is missing; the data set needs it"),
        (b"caf\xe9", read_text, "is not UTF-8 (byte 3)"),
        (b"a\0b", read_text, "file is no text: byte 1 is 0; is it the published file?"),
        (b"[" * 100_000, lambda path: read_json(path, dict), "file: not JSON"),
        (b"{", lambda path: read_json(path, dict), "file: not JSON"),
        (b"[]", lambda path: read_json(path, dict), "does not hold an object"),
        (b"a,b\n", lambda path: list(read_csv(path, ["c"])), "line 1: no column c; it has a, b"),
        (b"a,b\n1\n", lambda path: list(read_csv(path, ["b"])), "line 2: no b; the row has too few fields"),
    ],
)
def test_a_bad_file_is_named(path: Path, content: bytes | None, read: Callable[[Path], Any], message: str) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_values_are_of_their_type() -> None:
    assert field({"n": 3}, "n", int, "here") == 3
    for entry, message in (([], "no 'n'"), ({}, "no 'n'"), ({"n": True}, "'n' is True; it must be a whole number")):
        with pytest.raises(DataError, match=f"^here: {message}"):
            field(entry, "n", int, "here")
    with pytest.raises(DataError, match=r"^here: not JSON"):
        parse_json("[" * 100_000, "here")


def test_times_are_seconds_from_0_on() -> None:
    assert seconds({"end": 2}, "end", "here") == 2.0
    assert seconds({"end": None}, "end", "here") is seconds({}, "end", "here") is None
    for value in (-1, float("inf"), True, "2"):
        with pytest.raises(DataError, match="it must be a number of seconds, at least 0"):
            seconds({"end": value}, "end", "here")


def test_a_huge_file_is_not_read(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(DataError, match="has more than 1,073,741,824 bytes"):
        read_text(path)


def test_a_deep_value_is_shown_in_a_line() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(DataError, match=r"'a' is \[\[\[.*; it must be a text"):
        field({"a": nested}, "a", str, "here")
