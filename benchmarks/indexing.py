"""Measures how many clips a second are indexed, split into decoding, encoding and storing.

Other processes decode while clips are encoded, so an update only waits for the frames that are not there yet
(`wait_seconds`). Those processes are also measured alone, decoding the same videos with nothing else going on
(`decode_alone_seconds`). `decode_seconds` is the sum of their times during the update.

    python benchmarks/indexing.py [--videos DIR] [--num 400] [--workers N]

Without --videos, clips of shapes are drawn first (needs the train extra). Writes benchmarks/results/indexing.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from machine import write_result

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.model.bundle import default_bundle_path
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.pool import decode_many, usual_workers


def decode_alone_seconds(hbi: HBI, videos: Path, workers: int) -> float:
    """Returns the time in which the processes start and decode every video, with nothing else going on."""
    started = time.perf_counter()
    for _ in decode_many(find_videos(videos), hbi.bundle.manifest.sampling, workers=workers):
        pass
    return time.perf_counter() - started


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes that decode")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        videos = options.videos
        if videos is None:
            from hbi_training.data.shapes import write_shapes

            videos = Path(temporary) / "shapes"
            write_shapes(videos, options.num, 0, 0)
        hbi = HBI.load(options.bundle)
        with Index.open(videos, hbi, location=Path(temporary) / "index.sqlite") as index:
            report = index.update(workers=options.workers)
            seconds = {key: value for key, value in asdict(report).items() if key.endswith("_seconds")}
            seconds["decode_alone_seconds"] = decode_alone_seconds(hbi, videos, options.workers)
            result = {
                "model": hbi.bundle.manifest.name,
                "bundle_sha256": hbi.bundle.sha256,
                "clips": index.store.num_clips(),
                "workers": options.workers,
                **{key: round(value, 3) for key, value in seconds.items()},
            }
    print(result)
    print(write_result("indexing", result))


if __name__ == "__main__":
    main()
