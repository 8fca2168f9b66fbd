"""Writes an explanation to a file whose suffix names the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbi_infer.files import write_whole

if TYPE_CHECKING:
    from hbi_infer.tasks.explain import Explanation

SUFFIXES = (".png", ".html", ".json")


def write_explanation(explanation: Explanation, document: dict[str, Any], path: Path | str, *, overwrite: bool) -> None:
    """Writes an explanation as a picture, a page, or its JSON document; see `write_whole`.

    Raises:
        InputError: The file cannot be written, or exists and may not be overwritten.

    Warns:
        NoFramesWarning: The frames cannot be decoded; the file shows their times.
    """
    path = Path(path)
    write_whole(path, _rendered(explanation, document, path.suffix.lower()), overwrite=overwrite)


def _rendered(explanation: Explanation, document: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(document, indent=2) + "\n").encode()
    if suffix == ".html":
        from hbi_infer.render.explain_page import page

        return page(explanation).encode()
    from hbi_infer.render.explain_picture import picture

    return picture(explanation)
