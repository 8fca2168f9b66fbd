"""Clips of shapes, and bundles in several precisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_export.bundle import export_bundle
from hbi_export.options import CheckData
from hbi_infer.model.bundle import Bundle
from hbi_training.data.shapes import write_shapes
from hbi_training.weights.checkpoint import save_checkpoint
from tests.builders.exports import hbi_export, tiny_checkpoint
from tests.builders.tiny_bundle import write_part_of_embedded
from tests.builders.tiny_training import MEAN_POOLED_SECTION

NUM_TEST = 48


ONE_CLIP = 100 / NUM_TEST
"""In points of a recall."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> CheckData:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 24, 2, NUM_TEST, seed=5, workers=1)
    return CheckData(folder, workers=0)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What of the embedded bundle searches and explains."""
    folder = tmp_path_factory.mktemp("embedded") / "bundle"
    return write_part_of_embedded(folder, "video_encoder", "text_encoder", "interaction")


@pytest.fixture(scope="session")
def int8(data: CheckData, embedded: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The embedded bundle in int8, by the command, past its gate."""
    folder = tmp_path_factory.mktemp("bundles") / "int8"
    arguments = ("--precision", "int8", "--calibrate", data.folder, "--data", data.folder, "--max-drop", 3 * ONE_CLIP)
    made = hbi_export("quantize", embedded.path, "-o", folder, *arguments)
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines() == [f"measuring {embedded.path} on cpu", f"measuring {folder} on cpu"]
    assert "text_to_video/R@1" in made.stdout
    assert "video_encoder: int8" in made.stdout
    return Bundle.load(folder)


@pytest.fixture(scope="session")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A checkpoint that is quickly exported, and its bundle."""
    folder = tmp_path_factory.mktemp("pooled")
    checkpoint = tiny_checkpoint(MEAN_POOLED_SECTION)
    save_checkpoint(checkpoint, folder / "model")
    export_bundle(checkpoint, folder / "bundle")
    return folder / "model", Bundle.load(folder / "bundle")
