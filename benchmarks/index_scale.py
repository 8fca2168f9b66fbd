"""Measures how much the shortlist of a large index finds, and how long a search takes, cold and warm.

    python benchmarks/index_scale.py [--clips 1000 10000 100000] [--folder DIR] [--videos DIR --queries FILE]

The tokens are made up, see benchmarks/synthetic_tokens.py; with --videos, how much the shortlist finds is also measured
on real ones: those of the embedded model, of a folder of videos and a file with a query on each line. A cold search is
a new Python process that imports the library, opens the index and searches once; its file is in the operating system's
cache, and no model is loaded. A warm one is a further query in the same process. Writes
benchmarks/results/index_scale.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from synthetic_tokens import make_index, open_index

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.options import EVERYTHING, Searching
from hbi_infer.tasks.search import EXACT_BYTES
from hbi_infer.tokens.levels import Levels
from hbi_infer.tokens.similarity import top

TOP_K = 10
SHORTLISTS = (100, 500, 1000, 2000)
COLD_REPEATS = 5
WAYS: dict[str, dict[str, int]] = {"default": {}, "exact": {"exact_up_to": 10**9}, "shortlist": {"exact_up_to": 0}}


def recall(index: Index, queries: Sequence[Levels]) -> dict[str, dict[str, float]]:
    """Returns the mean share of the best clip and of the best ten that is in a shortlist of each length."""
    matrix = index.resident_matrix()
    shares: dict[tuple[int, int], list[float]] = {(k, length): [] for k in (1, TOP_K) for length in SHORTLISTS}
    for query in queries:
        best = matrix.ids[top(matrix.score(query), TOP_K)]
        near, _ = index.store.candidates(index.encoder.scoring.pooled(query)[0], EVERYTHING, max(SHORTLISTS))
        for (k, length), found in shares.items():
            found.append(float(np.isin(best[:k], near[:length]).mean()))
    return {
        f"recall_at_{k}": {str(length): round(statistics.mean(shares[k, length]), 4) for length in SHORTLISTS}
        for k in (1, TOP_K)
    }


def warm_seconds(folder: Path, options: dict[str, int]) -> float:
    """Returns the median of 20 queries after a first one."""
    times = []
    with open_index(folder) as index:
        for number in range(21):
            started = time.perf_counter()
            index.search(f"query {number}", Searching(top_k=TOP_K, **options))
            times.append(time.perf_counter() - started)
    return round(statistics.median(times[1:]), 4)


def cold_seconds(folder: Path, options: dict[str, int]) -> dict[str, float]:
    """Returns the medians of a whole process, and of opening the index and searching once in it."""
    command = [sys.executable, __file__, "--search-once", str(folder), json.dumps(options)]
    whole, search = [], []
    for _ in range(COLD_REPEATS):
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        whole.append(time.perf_counter() - started)
        search.append(float(done.stdout))
    return {"process": round(statistics.median(whole), 3), "search": round(statistics.median(search), 3)}


def search_once(folder: Path, options: dict[str, int]) -> None:
    """Prints the seconds that opening the index and one search take."""
    started = time.perf_counter()
    with open_index(folder) as index:
        matches = index.search("query 0", Searching(top_k=TOP_K, **options))
    assert len(matches) == TOP_K
    print(time.perf_counter() - started)


def measure(folder: Path, num_clips: int) -> dict[str, Any]:
    """Measures an index of one size."""
    started = time.perf_counter()
    with make_index(folder, num_clips) as index:
        made_seconds = time.perf_counter() - started
        found = recall(index, index.encoder.queries)  # type: ignore[attr-defined]
    return {
        "clips": num_clips,
        "index_mib": round((folder / "index.sqlite").stat().st_size / 2**20, 1),
        "made_and_stored_seconds": round(made_seconds, 1),
        "shortlist": found,
        "warm_seconds": {way: warm_seconds(folder, options) for way, options in WAYS.items()},
        "cold_seconds": {way: cold_seconds(folder, options) for way, options in WAYS.items()},
    }


def measure_real(videos: Path, queries: Path, folder: Path | None) -> dict[str, Any]:
    """Measures how much the shortlist finds of real clips."""
    model = HBI.load(device="cpu")
    texts = [line.strip() for line in queries.read_text().splitlines() if line.strip()]
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        Index.open(videos, model, location=Path(temporary) / "index.sqlite") as index,
    ):
        index.update()
        num_clips = index.store.num_clips()
        found = recall(index, [model.encode_text([text]) for text in texts])
    return {
        "model": model.bundle.manifest.name,
        "bundle_sha256": model.bundle.sha256,
        "clips": num_clips,
        "queries": len(texts),
        "shortlist": found,
    }


def main() -> None:
    """Measures every size and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="folder for the indexes: 1 GB for 100,000 clips")
    parser.add_argument("--videos", type=Path, help="folder of real videos to measure on too")
    parser.add_argument("--queries", type=Path, help="file with a query for them on each line")
    parser.add_argument("--search-once", nargs=2, metavar=("FOLDER", "OPTIONS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search_once:
        search_once(Path(arguments.search_once[0]), json.loads(arguments.search_once[1]))
        return
    rows = []
    for num_clips in arguments.clips:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows.append(measure(Path(folder), num_clips))
            print(json.dumps(rows[-1]))
    result: dict[str, Any] = {"exact_up_to_mib": EXACT_BYTES // 2**20, "rows": rows}
    if arguments.videos and arguments.queries:
        result["real"] = measure_real(arguments.videos, arguments.queries, arguments.folder)
        print(json.dumps(result["real"]))
    print(f"written to {write_result('index_scale', result)}")


if __name__ == "__main__":
    main()
