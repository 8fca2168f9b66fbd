"""How many clips a second are indexed, split into decoding, encoding and storing.

    python benchmarks/indexing.py [--videos DIR] [--num 400]

Without --videos, clips of shapes are drawn first (needs the train extra). Writes benchmarks/results/indexing.json.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from machine import write_result

from hbi_infer import HBI
from hbi_infer.bundle import default_bundle_path
from hbi_infer.index import Index


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        videos = options.videos
        if videos is None:
            from hbi_training.data.shapes import write_shapes

            videos = Path(temporary) / "shapes"
            write_shapes(videos, options.num, 0, 0)
        hbi = HBI.load(options.bundle)
        with Index.open(videos, hbi, location=Path(temporary) / "index.sqlite") as index:
            report = index.update()
            result = {
                "model": hbi.bundle.manifest.name,
                "clips": index.store.num_clips(),
                **{key: round(value, 3) for key, value in asdict(report).items() if key.endswith("_seconds")},
            }
    print(result)
    print(write_result("indexing", result))


if __name__ == "__main__":
    main()
