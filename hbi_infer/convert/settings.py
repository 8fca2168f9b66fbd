"""Settings of a model, from its JSON configuration: each is of the expected kind and size, or an error names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hbi_infer.errors import BundleError
from hbi_infer.model.strict_json import parse_strictly

LIMIT_BYTES = 2**22
"""Largest configuration; published ones have some thousand bytes."""
MOST = 2**20
"""Largest size of an axis, far beyond any model."""


def read_settings(folder: Path | str, name: str) -> Any:
    """Returns the content of a model's JSON file; None where there is none.

    Raises:
        BundleError: The file is no JSON, or too long for a configuration.
    """
    path = Path(folder) / name
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise ValueError(f"it has more than {LIMIT_BYTES:,} bytes")
        return parse_strictly(content)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot read {path} ({error}): fetch the model again") from error


class Settings:
    """A JSON object of settings, with its place for messages.

    Args:
        values: The object.
        where: File and key that it was read from.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise BundleError(f"{where} is {values!r:.80}; it must be an object: fetch the model again")
        self._values: Mapping[str, Any] = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def raw(self, key: str) -> Any:
        """Returns what stands under a key; None where there is nothing."""
        return self._values.get(key)

    def section(self, key: str) -> Settings:
        """Returns the object under a key; an empty one where there is none."""
        return Settings(self._values[key] if key in self else {}, f"{self.where}, {key}")

    def whole(self, key: str, default: int | None = None) -> int:
        """Returns a whole number from 1 on; of a pair of equal ones, the one."""
        value = self._or(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if type(value) is not int or not 1 <= value <= MOST:
            raise self.unsupported(key, f"a whole number from 1 to {MOST:,}", value)
        return value

    def number(self, key: str, default: float, *, least: float, most: float) -> float:
        """Returns a number within bounds."""
        value = self._or(key, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.unsupported(key, f"a number from {least:g} to {most:g}", value)
        return float(value)

    def choice(self, key: str, default: Any, choices: Mapping[Any, Any] | tuple[Any, ...]) -> Any:
        """Returns one of some values, or what a mapping has for it."""
        value = self._or(key, default)
        known = isinstance(value, str | int | float | bool | None) and value in choices
        if not known:
            raise self.unsupported(key, " or ".join(map(repr, choices)), value)
        return choices[value] if isinstance(choices, Mapping) else value

    def refuse(self, known: Mapping[str, Any]) -> None:
        """Refuses keys beyond the known ones, for they may change what a model computes; and values that are not done.

        Args:
            known: Key -> the one value that is done here, or None for a key whose value is read elsewhere, or is of no
                account.
        """
        for key, value in self._values.items():
            if key not in known:
                raise BundleError(f"{self.where}: {key} is {value!r:.80}, a setting that is not known here; {OTHERS}")
            if known[key] is not None and value is not None and value != known[key]:
                raise self.unsupported(key, repr(known[key]), value)

    def _or(self, key: str, default: Any) -> Any:
        return self._values[key] if key in self else default

    def unsupported(self, key: str, wanted: str, value: Any) -> BundleError:
        """Returns the error of a value that is not done here."""
        return BundleError(f"{self.where}: {key} is {value!r:.80}; only {wanted} is supported; {OTHERS}")


OTHERS = "choose a CLIP, OpenCLIP or SigLIP model of the usual kind"
