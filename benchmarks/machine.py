"""Writes measurements with the machine that they were taken on."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hbi_infer.bench.machine import code_version, describe_machine

RESULTS = Path(os.environ.get("HBI_BENCHMARK_RESULTS", Path(__file__).parent / "results"))


def write_result(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Writes `result` with the time, the code version and the machine to `path`; None: `results/<name>.json` here."""
    document = {
        "benchmark": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": code_version(),
        "machine": describe_machine(),
        "result": result,
    }
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path
