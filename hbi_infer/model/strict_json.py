"""Reads JSON in which every key stands once: of two values, readers would take one or the other."""

from __future__ import annotations

import json
from typing import Any


def parse_strictly(text: str | bytes) -> Any:
    """Parses a JSON value.

    Raises:
        ValueError: The text is not JSON, is nested too deep, or has an object with a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(document := dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"an object has the key {double!r:.80} twice")
    return document
