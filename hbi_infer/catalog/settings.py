"""The user's settings: a small TOML file that names the default model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from hbi_infer.catalog.names import SHAPES
from hbi_infer.errors import InputError
from hbi_infer.files import cannot_write, write_whole

VARIABLE = "HBI_BUNDLE"
"""Environment variable that names the default model; it goes before the settings."""
LIMIT_BYTES = 2**16
_INSTEAD = f"the model's name in {VARIABLE}"


@dataclass(frozen=True)
class Default:
    """The model that is meant where none is given.

    Attributes:
        name: Its name, for `parse_name`.
        source: The place that names it: the variable, the settings' file, or "" where it is the embedded model.
    """

    name: str
    source: str = ""


def settings_file() -> Path:
    """Returns the place of the settings."""
    return platformdirs.user_config_path("hbi-infer") / "settings.toml"


def default_model() -> Default:
    """Returns the default model: that of the environment, else of the settings, else the embedded one.

    Raises:
        InputError: The settings cannot be read.
    """
    if named := os.environ.get(VARIABLE, "").strip():
        return Default(named, VARIABLE)
    return Default(named, str(settings_file())) if (named := read_default(settings_file())) else Default(SHAPES)


def read_default(file: Path | str) -> str:
    """Reads which model is the default; empty if there are no settings.

    Raises:
        InputError: The settings are damaged or cannot be read.
    """
    file = Path(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(LIMIT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InputError(f"cannot read the settings {file} ({error.strerror}): mend its permissions") from error
    return _parsed(file, content)


def _parsed(file: Path, content: bytes) -> str:
    import tomllib  # most users have no settings

    mend = "mend it, or write it anew with: hbi-infer models use NAME"
    if len(content) > LIMIT_BYTES:
        raise InputError(f"the settings {file} have more than {LIMIT_BYTES:,} bytes: {mend}")
    try:
        settings = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"the settings {file} are damaged ({error}): {mend}") from error
    if unknown := [key for key in settings if key != "bundle"]:
        raise InputError(f"the settings {file} have the key {unknown[0]!r:.80}; the only one is bundle: {mend}")
    named = settings.get("bundle", "")
    if not isinstance(named, str):
        raise InputError(f"bundle of the settings {file} is {named!r:.80}; it must be the name of a model: {mend}")
    return named.strip()


def write_default(name: str, file: Path | str) -> None:
    """Writes which model is the default, in place of what the settings said; whole or not at all.

    Raises:
        InputError: The settings cannot be written, or no text file can hold the name.
    """
    file = Path(file)
    try:
        content = f"# Written by: hbi-infer models use NAME\nbundle = {_quoted(name)}\n".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name!r} is not a name that a text file can hold: rename the bundle") from error
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(file, error, instead=_INSTEAD) from error
    write_whole(file, content, overwrite=True, instead=_INSTEAD)


def _quoted(text: str) -> str:
    r"""Returns a text as TOML writes it, with \uXXXX for what would break the line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\0-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
