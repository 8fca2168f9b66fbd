"""An explanation as a file; its suffix says as what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbi_infer.errors import InputError
from hbi_infer.files import exists, is_folder

if TYPE_CHECKING:
    from hbi_infer.explain import Explanation

SUFFIXES = (".png", ".html", ".json")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse what could not be written, before there is anything to write.

    Raises:
        InputError: The file exists and is not to be overwritten, or its folder does not exist.
    """
    if exists(path) and not overwrite:
        raise InputError(f"{path} exists already: give --force to overwrite it, or another --out")
    if not is_folder(path.parent):
        raise InputError(f"there is no folder {path.parent} to write {path.name} to: make it, or give another --out")


def write_explanation(explanation: Explanation, document: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    """Write an explanation as a picture, a page, or its JSON document.

    Raises:
        InputError: The file cannot be written, or exists and is not to be overwritten.

    Warns:
        NoFramesWarning: The frames cannot be decoded; the file shows their times.
    """
    content = _rendered(explanation, document, path.suffix.lower())
    try:
        with path.open("wb" if overwrite else "xb") as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): give another --out") from error


def _rendered(explanation: Explanation, document: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(document, indent=2) + "\n").encode()
    if suffix == ".html":
        from hbi_infer.explain_page import page

        return page(explanation).encode()
    from hbi_infer.explain_picture import picture

    return picture(explanation)
