"""Tries to break into running services; writes the outcomes to benchmarks/results/break_ins.json and docs/serve.md.

python scripts/try_break_ins.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.builders.break_ins import table, try_all  # noqa: E402

PAGE = ROOT / "docs" / "serve.md"


def main() -> None:
    """Tries, and writes."""
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = try_all(Path(temporary))
    target = ROOT / "benchmarks" / "results" / "break_ins.json"
    target.write_text(json.dumps(outcomes, indent=2) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    start = page.index("| attempt | outcome |")
    end = page.index("\n\n", start)
    PAGE.write_text(page[:start] + table(outcomes) + page[end:], encoding="utf-8")
    print(f"{len(outcomes)} attempts")


if __name__ == "__main__":
    main()
