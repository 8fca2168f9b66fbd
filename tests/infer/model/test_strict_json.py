from __future__ import annotations

import pytest

from hbi_infer.model.strict_json import parse_strictly


def test_json_is_read() -> None:
    assert parse_strictly(b'{"a": [1, {"a": null}], "b": "\\u00e4"}') == {"a": [1, {"a": None}], "b": "ä"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "an object has the key 'a' twice"),
        ("[" * 100_000, "nested too deep"),
        ("{", "Expecting property name"),
        (b"\xff", "decode"),
        ("1" * 5000, "4300"),
    ],
)
def test_what_is_not_is_told(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_strictly(text)
