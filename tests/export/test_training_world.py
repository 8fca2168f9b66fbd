"""Files that describe a training: texts of the training split, and a direction that tells its clips from others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hbi_export.strange_clips import strange_clips
from hbi_export.training_world import NUM_TEXTS, add_training, describe_training
from hbi_infer.api import HBI
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.familiarity import familiarity_of
from hbi_infer.model.neutral_texts import encoded_texts, neutral_tokens
from hbi_infer.video.reader import decode
from hbi_training.data.shapes import write_shapes
from tests.builders.exports import Exported, hbi_export


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, 120, 1, 12, seed=3, workers=1)
    return folder


@pytest.fixture(scope="module")
def described(whole: Exported, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "bundle"
    shutil.copytree(whole.folder, folder)
    add_training(folder, data)
    return folder


def test_graphs_stay_and_two_files_come(described: Path, whole: Exported) -> None:
    before, after = Bundle.load(whole.folder), Bundle.load(described)
    after.verify()
    assert after.manifest.graphs == before.manifest.graphs
    assert set(after.other_contents()) == {"background", "familiarity"}
    assert after.sha256 != before.sha256


def test_texts_are_those_of_the_training(described: Path, data: Path) -> None:
    captions = [json.loads(line)["captions"] for line in (data / "train.jsonl").read_text().splitlines()]
    texts = list(dict.fromkeys(told[number % len(told)] for number, told in enumerate(captions)))
    model = HBI.load(described, device="cpu", threads=1)
    assert len(texts) < NUM_TEXTS
    expected, found = encoded_texts(model, texts), neutral_tokens(model)
    for name, level in found.items():
        np.testing.assert_array_equal(level.weights, expected[name].weights)


def test_clips_of_another_split_are_familiar_and_strange_ones_are_not(described: Path, data: Path) -> None:
    model = HBI.load(described, device="cpu", threads=1)
    familiarity = familiarity_of(model.bundle)
    assert familiarity is not None
    sampling = model.bundle.manifest.sampling
    drawn = np.stack([decode(path, sampling).clips[0].frames for path in sorted((data / "videos").glob("test_*"))])
    strange = np.stack(list(strange_clips(sampling, 48, seed=1)))
    flags = [
        familiarity.unfamiliar(model.encode_video(frames, np.ones(frames.shape[:2], np.bool_)))
        for frames in (drawn, strange)
    ]
    assert flags[0].mean() <= 0.2
    assert flags[1].mean() >= 0.7


def test_too_little_data_is_refused(whole: Exported, tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 2, 0, 0, workers=1)
    with pytest.raises(ExportError, match="has 2 texts and 2 training clips that can be decoded"):
        describe_training(Bundle.load(whole.folder), tmp_path / "data")


def test_command_describes_a_bundle_or_says_what_is_wrong(whole: Exported, data: Path, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "bundle")
    done = hbi_export("describe", tmp_path / "bundle", "--data", data)
    assert done.returncode == 0, done.stderr
    assert "knows its training data now" in done.stdout
    assert set(Bundle.load(tmp_path / "bundle").other_contents()) == {"background", "familiarity"}
    done = hbi_export("describe", tmp_path / "none", "--data", data)
    assert done.returncode == 1
    assert "there is no bundle at" in done.stderr
