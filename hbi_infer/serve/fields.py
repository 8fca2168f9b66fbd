"""Fields of a request, checked one by one: a wrong one is a problem that says what was given and expected."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from hbi_infer.serve.problems import Problem, bad_input

_MISSING: Any = object()
MOST_NUMBER = 1e15
"""Largest number that any field takes."""


class Fields:
    """The fields of a JSON object, or of a query string, whose values are texts.

    Args:
        given: The fields.
        known: Names that there may be.
        where: Name of the object in messages.
        are_texts: Whether numbers and truths are written as texts.
    """

    def __init__(
        self, given: Mapping[str, Any], known: Collection[str], where: str = "the body", *, are_texts: bool = False
    ) -> None:
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
                raise bad_input(f"{where} has no field {name[:40]!r}; {hint}")
        self._given, self._where, self._are_texts = given, where, are_texts

    def has(self, name: str) -> bool:
        """Returns whether a field is given and not null."""
        return self._given.get(name) is not None

    def text(self, name: str, default: str = _MISSING, *, most: int) -> str:
        """Returns a text of at most `most` letters."""
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        self._check_text(name, value, most)
        return value

    def text_or_none(self, name: str, *, most: int) -> str | None:
        """Returns a text of at most `most` letters; None if the field is missing or null."""
        return self.text(name, most=most) if self.has(name) else None

    def texts(self, name: str, *, most: int, most_texts: int) -> list[str]:
        """Returns one text or several as a list; none if the field is missing."""
        value = self._value(name, [])
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._wrong(name, value, "a text, or a list of texts")
        if len(texts) > most_texts:
            raise bad_input(f"{name} has {len(texts)} texts; give at most {most_texts}")
        for text in texts:
            self._check_text(name, text, most)
        return texts

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Returns a whole number within limits."""
        value = self._number(name, default, f"a whole number from {least} to {most}")
        if value != int(value) or not least <= value <= most:
            raise self._wrong(name, value, f"a whole number from {least} to {most}")
        return int(value)

    def number(self, name: str, default: float | None, *, least: float, most: float) -> float | None:
        """Returns a number within limits, or the default."""
        if not self.has(name):
            return default
        value = self._number(name, 0.0, f"a number from {least:g} to {most:g}")
        if not least <= value <= most:
            raise self._wrong(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def truth(self, name: str, default: bool) -> bool:
        """Returns a truth."""
        value = self._value(name, default)
        if self._are_texts and value in ("true", "false"):
            value = value == "true"
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """Returns one of some texts."""
        value = self._value(name, default)
        if value not in choices:
            raise self._wrong(name, value, f"one of: {', '.join(choices)}")
        return str(value)

    def moment(self, name: str) -> datetime | None:
        """Returns a time in the form of ISO 8601."""
        if not self.has(name):
            return None
        value = self._given[name]
        try:
            return datetime.fromisoformat(value)
        except (ValueError, TypeError):
            raise self._wrong(name, value, "a time such as 2026-05-31 or 2026-05-31T14:00:00") from None

    def fields(self, name: str, known: Collection[str]) -> Fields:
        """Returns the fields of an object within; none if it is missing."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Fields(value, known, name)

    def _value(self, name: str, default: Any) -> Any:
        value = self._given.get(name)
        if value is not None:
            return value
        if default is _MISSING:
            raise bad_input(f"{self._where} has no {name}: give it")
        return default

    def _number(self, name: str, default: float, expected: str) -> float:
        value: Any = self._value(name, default)
        if self._are_texts and isinstance(value, str) and len(value) <= 40:
            try:
                value = float(value)
            except ValueError:
                raise self._wrong(name, value, expected) from None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not -MOST_NUMBER <= value <= MOST_NUMBER:  # this leaves out what is no number, too
            raise self._wrong(name, value, expected)
        return float(value)

    def _check_text(self, name: str, value: str, most: int) -> None:
        if len(value) > most:
            raise bad_input(f"{name} has {len(value)} letters; give at most {most}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise bad_input(f"{name} holds half of a letter (a lone surrogate): give Unicode text") from None

    def _wrong(self, name: str, value: Any, expected: str) -> Problem:
        shown = repr(value)
        return bad_input(f"{name} is {shown if len(shown) <= 80 else shown[:80] + '...'}; it must be {expected}")


def read_object(content: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        Problem: It is none.
    """
    try:
        document = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise bad_input(f"the body is no JSON ({str(error)[:80]}): send a JSON object") from None
    if not isinstance(document, dict):
        raise bad_input(f"the body is a JSON {type(document).__name__}; send an object")
    return document


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
