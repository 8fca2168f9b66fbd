"""Every attempt to break in ends as the page of the service says."""

from __future__ import annotations

import json
from pathlib import Path

from tests.builders.break_ins import table, try_all
from tests.paths import ROOT

OUTCOMES = json.loads((ROOT / "benchmarks" / "results" / "break_ins.json").read_text())


def test_every_attempt_ends_as_it_did(tmp_path: Path) -> None:
    """Against real services; `python scripts/try_break_ins.py` writes the outcomes anew."""
    assert try_all(tmp_path) == OUTCOMES


def test_none_gives_anything_away() -> None:
    allowed = ("as JSON", "the name is encoded", "nothing is found", "others are served")
    for name, outcome in OUTCOMES.items():
        is_harmless = any(part in outcome for part in allowed) or name in ("a thousand ranges", "a WebSocket")
        assert outcome[:3] != "200" or is_harmless or "401" in outcome, name


def test_the_page_has_the_table() -> None:
    assert table(OUTCOMES) in (ROOT / "docs" / "serve.md").read_text()
