"""Reading published text, JSON and CSV files; every fault is a `DataError` that names the file and the line."""

from __future__ import annotations

import csv
import io
import json
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hbi_infer.errors import DataError

Kind = TypeVar("Kind")

FILE_LIMIT_BYTES = 2**30
NAMES_OF_TYPES: dict[type, str] = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def read_text(path: Path) -> str:
    """Reads a whole UTF-8 file (with or without a byte order mark).

    Raises:
        DataError: The file is missing, cannot be read, is huge or is no text in UTF-8.
    """
    try:
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > FILE_LIMIT_BYTES:
                raise DataError(f"{path} has more than {FILE_LIMIT_BYTES:,} bytes; is it the published file?")
            content = file.read(size + 1)
        if b"\0" in content:
            raise DataError(f"{path} is no text: byte {content.index(0):,} is 0; is it the published file?")
        return content.decode("utf-8-sig")
    except FileNotFoundError as exc:
        raise DataError(f"{path} is missing; the data set needs it") from exc
    except UnicodeDecodeError as exc:
        raise DataError(f"{path} is not UTF-8 (byte {exc.start}); convert it") from exc
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror}") from exc


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the lines of a file that are not blank, each with its place ("FILE, line 3").

    Lines end at line feeds alone: a text may hold U+2028 and other characters at which `str.splitlines` would cut it.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r")


def parse_json(text: str, where: str) -> Any:
    """Parses a JSON value.

    Raises:
        DataError: The text is not JSON, or an object has a key twice.
    """

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise DataError(f"{where}: the key {twice!r:.80} stands twice in one object; join them, or delete one")
        return entry

    try:
        return json.loads(text, object_pairs_hook=build)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{where}: not JSON: {exc}") from exc


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Reads a JSON file that must hold a list or an object."""
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, kind):
        raise DataError(f"{path} does not hold {NAMES_OF_TYPES[kind]}; is it the published file?")
    return value


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a comma-separated file whose header has at least these columns, each with its place.

    Raises:
        DataError: A column is missing from the header or from a row.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}, line 1: no column {missing[0]}; it has {', '.join(reader.fieldnames or ())}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            for column in columns:
                if row[column] is None:
                    raise DataError(f"{where}: no {column}; the row has too few fields")
            yield where, {column: row[column] for column in columns}
    except csv.Error as exc:
        raise DataError(f"{path}, line {reader.line_num}: {exc}") from exc


def shown(value: Any) -> str:
    """Returns the beginning of a value; of lists and objects only the outer ones, for they may be deep."""
    return f"{reprlib.repr(value) if isinstance(value, list | dict) else repr(value):.60}"


def field(entry: Any, key: str, kind: type[Kind], where: str) -> Kind:
    """Returns the value of a required key, which must have this type.

    Raises:
        DataError: The entry is no object, lacks the key, or has a value of another type.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"{where}: no {key!r}")
    value = entry[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise DataError(f"{where}: {key!r} is {shown(value)}; it must be {NAMES_OF_TYPES[kind]}")
    return value


def check_unicode(text: str, where: str) -> None:
    """Refuses half a surrogate pair, which JSON can hold and no tokenizer takes.

    Raises:
        DataError: The text has such a half.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}: {text!r:.60} holds half a character (a lone surrogate); correct or delete it")


def seconds(entry: dict[str, Any], key: str, where: str) -> float | None:
    """Returns a time in seconds, at least 0; None if the key is missing or null.

    Raises:
        DataError: The value is not such a number.
    """
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise DataError(f"{where}: {key!r} is {shown(value)}; it must be a number of seconds, at least 0")
    return float(value)
