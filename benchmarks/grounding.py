"""Measures whether the maps of a bundle point at the moments at which the events of drawn scenes happen.

    hbi-train data shapes --out data/grounding --num 311 --num-val 10 --num-test 300 --seed 7
    python benchmarks/grounding.py --data data/grounding [--bundle PATH]

The measures are those of hbi_training/evaluation/grounding.py, of one caption of each clip of the test split. Writes
benchmarks/results/grounding.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import write_result

from hbi_infer import HBI
from hbi_training.data.formats import load_records
from hbi_training.data.frame_cache import FrameCache
from hbi_training.evaluation.grounding import measure_grounding


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder that hbi-train data shapes wrote.")
    parser.add_argument("--bundle", type=Path, help="Folder of a bundle.")
    options = parser.parse_args()
    hbi = HBI.load(options.bundle or "shapes", device="cpu")
    manifest = hbi.bundle.manifest
    records = load_records("manifest", options.data, "test")
    cache = FrameCache(options.data / "frames", records, manifest.sampling)
    cache.fill()
    found = measure_grounding(hbi, records, cache, max_words=manifest.max_words, directions=manifest.scoring.directions)
    result = {
        "bundle": {"name": manifest.name, "sha256": hbi.bundle.sha256},
        "clips": len(cache.decoded),
        "measured": {name: round(value, 2) for name, value in found.items()},
    }
    for name, value in result["measured"].items():
        if "/verb/pointing/" in name:
            print(f"{name:<44} {value:.1f}")
    print(write_result("grounding", result))


if __name__ == "__main__":
    main()
