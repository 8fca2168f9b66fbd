"""Measures `hbi-infer --help` and a search of a prepared index, each in new processes.

    python benchmarks/startup.py [--bundle PATH] [--clips 10000] [--repeats 10]

The prepared index holds made-up tokens of as many clips as asked for, five to a video, and the folder a file of each
video, so that a search does all it does for real: load the model, look at the folder for new files, read the tokens,
score every clip. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from timing import timed

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.index.content_mark import read_mark
from hbi_infer.index.store import FileVersion, LedgerEntry
from hbi_infer.model.bundle import default_bundle_path
from hbi_infer.tokens.levels import LevelTokens, unit
from hbi_infer.video.decoded_video import Clip

COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()"]
CLIPS_PER_VIDEO = 5
QUERY = "a small red circle moves left and then a blue square blinks"


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, index = Path(temporary) / "videos", Path(temporary) / "index.sqlite"
        hbi = HBI.load(options.bundle)
        prepare(folder, index, hbi, options.clips)
        search = ["retrieve", "--videos", str(folder), "--index", str(index), "--bundle", str(options.bundle)]
        result = {
            "bundle": {"name": hbi.bundle.manifest.name, "sha256": hbi.bundle.sha256},
            "clips": options.clips,
            "videos": options.clips // CLIPS_PER_VIDEO,
            "index_bytes": index.stat().st_size,
            "seconds": {
                "python -c pass": measure([sys.executable, "-c", "pass"], options.repeats),
                "hbi-infer --help": measure([*COMMAND, "--help"], options.repeats),
                "hbi-infer retrieve": measure([*COMMAND, *search, "--query", QUERY], options.repeats),
                "hbi-infer retrieve --no-update": measure(
                    [*COMMAND, *search, "--query", QUERY, "--no-update"], options.repeats
                ),
            },
        }
    for name, seconds in result["seconds"].items():
        print(f"{name:<32} {seconds['median']:.3f} s (of {seconds['fastest']:.3f} to {seconds['slowest']:.3f})")
    print(write_result("startup", result))


def measure(command: list[str], repeats: int) -> dict[str, Any]:
    """Returns the wall-clock seconds of a command in new processes, after one that is not counted.

    Python may keep its bytecode, as it does of an installed package: compiling the modules anew each time would count.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return timed(lambda: subprocess.run(command, check=True, capture_output=True, env=environment), repeats)


def prepare(folder: Path, location: Path, hbi: HBI, num_clips: int) -> None:
    """Fills an index with random unit tokens, and the folder with an empty file for each video."""
    folder.mkdir()
    random = np.random.default_rng(0)
    manifest = hbi.bundle.manifest
    sampling = manifest.sampling
    times = np.linspace(0.0, sampling.clip_seconds, sampling.max_frames, endpoint=False)
    mask = np.ones(sampling.max_frames, np.bool_)
    frames = np.zeros((sampling.max_frames, 1, 1, 3), np.uint8)  # an index keeps no pixels
    with Index.open(folder, hbi, location=location) as index:
        for number in range(num_clips // CLIPS_PER_VIDEO):
            path = folder / f"{number:06}.mp4"
            path.touch()
            levels, below = {}, 0
            for level in manifest.levels:
                levels[level.name] = LevelTokens(
                    unit(random.standard_normal((CLIPS_PER_VIDEO, level.video_tokens, manifest.width), np.float32)),
                    np.full((CLIPS_PER_VIDEO, level.video_tokens), 1 / level.video_tokens, np.float32),
                    random.integers(0, level.video_tokens, (CLIPS_PER_VIDEO, below)),
                )
                below = level.video_tokens
            clips = [
                Clip(start, start + sampling.clip_seconds, frames, start + times, mask)
                for start in sampling.clip_seconds * np.arange(CLIPS_PER_VIDEO)
            ]
            stat = path.stat()
            version = FileVersion(stat.st_size, stat.st_mtime_ns)
            record = LedgerEntry(path=path.name, version=version, mark=read_mark(path, version))
            index.store.put(record, clips, index.store.layout.pack(levels), hbi.scoring.pooled(levels))


if __name__ == "__main__":
    main()
