"""What a newcomer sees first: the embedded model, the samples and the demo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from hbi_infer import HBI
from hbi_infer.api import Index
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.video.discovery import find_videos
from hbi_training.objective.objective import Objective
from hbi_training.run.recipe import load_recipe, recipe_to_mapping
from tests.paths import ROOT

SAMPLES = ROOT / "samples"
MEBIBYTE = 2**20
FORWARD = "a small red circle moves left and then a blue square blinks"
BACKWARD = "a blue square blinks and then a small red circle moves left"
NAMES = {
    FORWARD: "small-red-circle-moves-left-then-blue-square-blinks.mp4",
    BACKWARD: "blue-square-blinks-then-small-red-circle-moves-left.mp4",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index.open(SAMPLES, HBI.load(device="cpu"), location=tmp_path_factory.mktemp("index") / "samples.sqlite")
    index.update()
    return index


def test_the_embedded_bundle_is_whole_small_and_says_what_it_scored() -> None:
    bundle = Bundle.load(default_bundle_path())
    bundle.verify()
    assert sum(file.stat().st_size for file in default_bundle_path().iterdir()) <= 10 * 1000 * 1000
    provenance = bundle.manifest.provenance
    metrics = {"text_to_video/R@1", "video_to_text/R@1", "answer/accuracy", "caption/right/all"}
    assert {f"test/{name}" for name in metrics} <= provenance.metrics.keys()
    assert json.loads(provenance.recipe)["name"] == bundle.manifest.name == "shapes"
    assert {"retrieve", "qa", "caption"} <= set(bundle.manifest.tasks)
    assert "coloured shapes" in bundle.manifest.notice


def test_the_samples_are_small_and_one_is_damaged(samples: Index) -> None:
    files = find_videos(SAMPLES)
    assert len(files) == 11
    assert sum(file.stat().st_size for file in files) < MEBIBYTE
    assert len({file.suffix for file in files}) >= 5
    assert [fault.path for fault in samples.failures()] == ["damaged.mp4"]


@pytest.mark.parametrize("query", [FORWARD, BACKWARD])
def test_order_decides_between_the_two_clips_of_the_same_things(samples: Index, query: str) -> None:
    found = [match.path.name for match in samples.search(query, top_k=2)]
    assert found == [NAMES[query], NAMES[FORWARD if query == BACKWARD else BACKWARD]]


def test_every_sample_is_found_by_its_own_name(samples: Index) -> None:
    ranks = []
    for path in find_videos(SAMPLES):
        if path.stem != "damaged":
            query = path.stem.replace("-", " ")
            ranks.append([match.path.name for match in samples.search(query)].index(path.name))
    assert ranks.count(0) >= 9
    assert max(ranks) <= 2


def test_the_embedded_model_was_made_by_its_recipe() -> None:
    recorded = json.loads(Bundle.load(default_bundle_path()).manifest.provenance.recipe)
    recorded["objective"] = asdict(Objective(**recorded["objective"]))  # terms that came later have their defaults
    recipe = recipe_to_mapping(load_recipe(ROOT / "training" / "recipes" / "shapes.yaml"))
    assert {**recorded, "notice": ""} == {**recipe, "notice": ""}, "the notice names models and may change"


def test_the_demo_shows_the_right_clips_an_answer_and_a_caption(tmp_path: Path) -> None:
    environment = {**os.environ, "VENV": sys.prefix, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(["bash", "scripts/demo"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "damaged.mp4 cannot be searched" in done.stderr
    first = [line for line in done.stdout.splitlines() if re.search(r"(^|\t)1\t", line)]
    assert [name for line in first for name in NAMES.values() if name in line] == [NAMES[FORWARD], NAMES[BACKWARD]]
    if "cannot be had here" not in done.stdout:
        real = [Path(line.split("\t")[3]).stem for line in first if "real-clips" in line]
        assert real == ["bigbuckbunny", "bikes", "carphone_pristine"]
    assert re.search(r"how many rings are there\?\t\S+rings-move-left.avi\t1\t0.000\t4.000\t2\t", done.stdout)
    assert re.search(r"in which direction .*\t4.000\tleft\t", done.stdout)
    assert "\ttwo big red rings move left\t" in done.stdout
