"""Decodes many damaged videos, and counts what comes of them by container.

The videos are made by the tests' builders, then damaged in nine ways: flipped bits, absurd numbers in headers,
truncation, swapped, repeated and overwritten blocks, and more; one seed gives the same files. Worker processes decode
them. A result that makes no sense (times that are not finite, no reason for a failure, a video that is missing) is
listed, and makes the exit code 1.

    python benchmarks/mutations.py [--count 1000] [--seed 0] [--out FILE] [--workers N]

Writes benchmarks/results/mutations.json, or FILE.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import write_result

from hbi_infer.video.pool import usual_workers
from tests.builders.mutations import outcomes, write_mutations


def measure(count: int, seed: int, workers: int) -> dict[str, Any]:
    """Returns how many files of each container came to which end."""
    with tempfile.TemporaryDirectory() as temporary:
        mutations = list(write_mutations(Path(temporary), count, seed))
        started = time.perf_counter()
        counts, wrong = outcomes(mutations, workers=workers)
        seconds = time.perf_counter() - started
    totals: Counter[str] = Counter()
    by_container: dict[str, dict[str, int]] = {}
    for (container, outcome), number in sorted(counts.items()):
        totals[outcome] += number
        by_container.setdefault(container, {})[outcome] = number
    return {
        "files": counts.total(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "wrong": wrong,
        "outcomes": dict(sorted(totals.items())),
        "by_container": by_container,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes that decode")
    options = parser.parse_args()
    result = measure(options.count, options.seed, options.workers)
    print(json.dumps(result, indent=2))
    print(write_result("mutations", result, options.out))
    raise SystemExit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
