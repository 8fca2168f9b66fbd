"""Our makers: versions, kinds that are refused before their weights are there, and real bundles."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer.catalog.listener import Listener
from hbi_infer.catalog.makers import Converters
from hbi_infer.catalog.names import EVERYDAY, HubName
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle
from tests.builders.tiny_clip import write_tiny_clip
from tests.paths import ROOT


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("source") / "clip")


def test_versions_are_letters_and_digits() -> None:
    assert Converters().version(HubName("tiny/clip")).isalnum()
    assert Converters().version(EVERYDAY).isalnum()


def test_a_bundle_says_where_it_is_from(source: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    Converters().make(HubName("tiny/clip", "v1"), source, tmp_path / "bundle", "1" * 40, Listener(steps.append))
    assert steps
    bundle = Bundle.load(tmp_path / "bundle")
    bundle.verify()
    provenance = bundle.manifest.provenance
    assert (bundle.manifest.name, provenance.origin, provenance.revision) == ("tiny/clip", "tiny/clip", "1" * 40)


def test_the_kind_is_looked_at_before_the_weights_are_there(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    Converters().check(folder)
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**configuration, "model_type": "bert"}))
    with pytest.raises(BundleError, match="'bert'"):
        Converters().check(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(BundleError):
        Converters().check(folder)


def test_a_name_that_is_at_hand_imports_neither_the_hub_nor_onnx() -> None:
    script = (
        # What measures coverage may have read its own TOML before the first line.
        "import sys; before = set(sys.modules);"
        "from hbi_infer.catalog.catalog import our_catalog; catalog = our_catalog(); catalog.resolve();"
        "print(catalog._found(__import__('hbi_infer.catalog.names').catalog.names.HubName('a/b')));"
        "heavy = {'huggingface_hub', 'onnx', 'safetensors', 'tomllib'};"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["None", "[]"]
