"""Measures what `--min-match` leaves out, and which clips are called unfamiliar.

    hbi-train data shapes --out data/shapes --num 2800 --num-val 100 --num-test 1000
    python benchmarks/nothing_matches.py --data data/shapes [--strange FOLDER] [--real FOLDER --bundle everyday]

The drawn world: folders of several sizes are drawn from the test split. A query is the plain caption of a scene of the
folder, or of one that is not in it, of the same split. For each least match: the share of right first results that
stay, and of wrong first results that go, among queries whose scene is there and among those whose scene is not. Right
ones of queries that tell only the first of a scene's two events are counted apart.

--strange names a folder of videos of any other kind: how many of their clips are unfamiliar to the embedded model, and
how many of the test split's. --real names a folder of real videos, searched with the bundle for the queries in
benchmarks/real_queries.json. Writes benchmarks/results/nothing_matches.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import write_result

from hbi_infer.api import HBI, Index
from hbi_infer.index.background import background_of
from hbi_infer.model.familiarity import familiarity_of
from hbi_infer.model.neutral_texts import encoded_texts, neutral_tokens
from hbi_infer.options import EVERYTHING, MIN_MATCH, Searching
from hbi_infer.tokens.background import Background, sample
from hbi_training.data.shapes import scenes
from hbi_training.data.shapes.captions import Story, story_of, tell

SIZES = (10, 30, 100, 300, 1000)
LEAST_MATCHES = (0.5, 0.8, 0.9, 0.95, MIN_MATCH, 0.98, 0.99, 0.995, 0.999)
QUERIES = Path(__file__).parent / "real_queries.json"
OTHER_SEED = 20_000
"""Seed of scenes that are in no folder."""

Floats = npt.NDArray[np.floating[Any]]


def drawn_world(index: Index, data: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """Measures folders drawn from the index of the test split, of each size."""
    encoder = index.encoder
    clips = index.tokens(index.store.clip_ids(EVERYTHING))[1]
    paths = [clip.path for clip in index.store.clips(index.store.clip_ids(EVERYTHING).tolist())]
    drawn = enumerate(scenes(seed_of(data), "test", len(paths)))
    stories = {f"test_{number:06}.mp4": story_of(scene) for number, scene in drawn}
    told = {name: tell(story) for name, story in stories.items()}
    present = [told[path.rpartition("/")[2]] for path in paths]
    part = [tell(first_event(stories[path.rpartition("/")[2]])) for path in paths]
    others = [tell(story_of(scene)) for scene in scenes(OTHER_SEED, "test", len(paths))]
    absent = [text for text in others if text not in told.values()]
    scores = {
        name: encoder.scoring.similarity(texts, clips)
        for name, texts in (
            ("neutral", neutral_tokens(encoder)),
            ("present", encoded_texts(encoder, present)),
            ("part", encoded_texts(encoder, part)),
            ("absent", encoded_texts(encoder, absent)),
        )
    }
    found = {str(size): of_size(scores, size) for size in sizes if size <= len(paths)}
    return {"data": data.name, "clips": len(paths), "absent_queries": len(absent), "folders": found}


def first_event(story: Story) -> Story:
    """Returns the story of the first event alone."""
    return replace(story, kind="count" if story.count > 1 else "single", actors=story.actors[:1], still=None)


def seed_of(data: Path) -> int:
    """Returns the seed of a drawn data set."""
    return int(json.loads((data / "shapes.json").read_text(encoding="utf-8"))["seed"])


def of_size(scores: dict[str, Floats], size: int) -> dict[str, Any]:
    """Measures folders of `size` clips, drawn from N clips whose scores (B, N) with all texts are given."""
    num_clips = scores["present"].shape[1]
    matches: dict[str, list[float]] = {"right": [], "wrong": [], "absent": [], "part": []}
    folders = max(2, min(50, num_clips // size))
    for seed in range(folders):
        chosen = np.sort(np.random.default_rng(seed).permutation(num_clips)[:size])
        background = Background.of(scores["neutral"][:, chosen[sample(size)]])
        present, part = (scores[name][np.ix_(chosen, chosen)] for name in ("present", "part"))
        is_right, is_right_by_part = (each.argmax(axis=1) == np.arange(size) for each in (present, part))
        for name, best in (
            ("right", present[is_right].max(axis=1, initial=-np.inf)),
            ("wrong", present[~is_right].max(axis=1, initial=-np.inf)),
            ("absent", scores["absent"][:, chosen].max(axis=1)),
            ("part", part[is_right_by_part].max(axis=1, initial=-np.inf)),
        ):
            matches[name] += [background.match(float(score), size) for score in best]
    return {"folders": folders, "recall_at_1": share(len(matches["right"]), size * folders), **curve(matches)}


def curve(matches: dict[str, list[float]]) -> dict[str, Any]:
    """Returns the shares that stay and go at each least match, from the matches of first results."""
    counts = {name: len(values) for name, values in matches.items()}
    rows = []
    for least in LEAST_MATCHES:
        below = {name: sum(match < least for match in values) for name, values in matches.items()}
        rows.append(
            {
                "min_match": least,
                "right_stay": share(counts["right"] - below["right"], counts["right"]),
                "absent_go": share(below["absent"], counts["absent"]),
                "wrong_go": share(below["wrong"], counts["wrong"]),
            }
        )
        if "part" in counts:
            rows[-1]["part_stay"] = share(counts["part"] - below["part"], counts["part"])
    return {"first_results": counts, "curve": rows}


def share(part: int, whole: int) -> float | None:
    """Returns percent, None of nothing."""
    return round(100 * part / whole, 2) if whole else None


def unfamiliar_clips(index: Index) -> dict[str, Any]:
    """Returns how many of the clips of an index are unfamiliar."""
    familiarity = familiarity_of(index.encoder.bundle)
    if familiarity is None:
        raise SystemExit(f"{index.encoder.bundle.path} does not know what is familiar: give it to hbi-export describe")
    clips = index.tokens(index.store.clip_ids(EVERYTHING))[1]
    flags = familiarity.unfamiliar(clips)
    videos = len(index.store.ledger()) - len(index.failures())
    strange = int(flags.sum())
    return {"videos": videos, "clips": len(flags), "unfamiliar": strange, "percent": share(strange, len(flags))}


def real_clips(index: Index) -> dict[str, Any]:
    """Searches real videos for what they show and for what is not there."""
    queries = json.loads(QUERIES.read_text(encoding="utf-8"))
    everything = Searching(top_k=1)
    matches: dict[str, list[float]] = {"right": [], "wrong": [], "absent": []}
    known = {path.rpartition("/")[2] for path in index.store.ledger()}
    for name in sorted(known & queries["present"].keys()):
        for query in queries["present"][name]:
            best = index.search(query, everything)[0]
            matches["right" if best.path.name == name else "wrong"].append(best.match or 0.0)
    matches["absent"] = [index.search(query, everything)[0].match or 0.0 for query in queries["absent"]]
    background = background_of(index)
    return {
        "bundle": index.encoder.bundle.manifest.name,
        "videos": sorted(known & queries["present"].keys()),
        "clips": index.store.num_clips(),
        "background": background.to_json() if background else None,
        **curve(matches),
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a drawn data set")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--strange", type=Path, help="videos of another kind")
    parser.add_argument("--real", type=Path, help="real videos")
    parser.add_argument("--bundle", help="a model for real videos")
    options = parser.parse_args()
    result: dict[str, Any] = {"min_match": MIN_MATCH}
    with tempfile.TemporaryDirectory() as temporary:
        hbi = HBI.load()
        result["bundle"] = {"name": hbi.bundle.manifest.name, "sha256": hbi.bundle.sha256}
        test = Path(temporary) / "test"
        test.mkdir()
        for line in (options.data / "test.jsonl").read_text(encoding="utf-8").splitlines():
            video = options.data / json.loads(line)["video"]
            (test / video.name).symlink_to(video.resolve())
        with hbi.index(test, location=Path(temporary) / "test.sqlite") as index:
            result["drawn"] = drawn_world(index, options.data, options.sizes)
            result["unfamiliar"] = {"drawn": unfamiliar_clips(index)}
        if options.strange:
            with hbi.index(options.strange, location=Path(temporary) / "strange.sqlite") as index:
                result["unfamiliar"]["strange"] = unfamiliar_clips(index)
        if options.real:
            real = HBI.load(options.bundle)
            with real.index(options.real, location=Path(temporary) / "real.sqlite") as index:
                result["real"] = real_clips(index)
    print(json.dumps(result, indent=1))
    print(write_result("nothing_matches", result))


if __name__ == "__main__":
    main()
