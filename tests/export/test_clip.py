"""Models of others are exported from folders and from a hub on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPModel

from hbi_export.clip import export_clip
from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.bundle import Bundle
from hbi_infer.options import FrameSampling
from tests.builders.command_line import run_python
from tests.infer.convert.test_clip import features_agree


def test_a_folder_becomes_a_bundle_that_scores_as_clip_does(clip_folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    export_clip(str(clip_folder), tmp_path / "bundle", sampling=FrameSampling(), weights="float32", say=lines.append)
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert manifest.sampling == FrameSampling(image_size=32)
    assert (manifest.name, manifest.provenance.origin) == ("tiny-clip", "tiny-clip")
    assert lines[0] == "reading tiny-clip"
    features_agree(tmp_path / "bundle", CLIPModel.from_pretrained(clip_folder).eval())


@pytest.mark.parametrize(("weights", "tolerance"), [("float16", 2e-3), ("int8", 5e-2)])
def test_weights_are_stored_smaller(clip_folder: Path, tmp_path: Path, weights: str, tolerance: float) -> None:
    for stored in ("float32", weights):
        export_clip(str(clip_folder), tmp_path / stored, sampling=FrameSampling(), weights=stored)  # type: ignore[arg-type]
    sizes = {
        stored: sum((tmp_path / stored / f"{side}_encoder.onnx").stat().st_size for side in ("text", "frame"))
        for stored in ("float32", weights)
    }
    assert sizes[weights] < {"float16": 0.6, "int8": 0.35}[weights] * sizes["float32"]
    assert Bundle.load(tmp_path / weights).manifest.graphs["text_encoder"].precision == f"{weights} weights"
    features_agree(tmp_path / weights, CLIPModel.from_pretrained(clip_folder).eval(), tolerance)


def test_neither_a_folder_nor_a_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder /nowhere, and it is no name on the hub"):
        export_clip("/nowhere", tmp_path / "bundle", sampling=FrameSampling(), weights="float32")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        export_clip("owner/name", tmp_path, sampling=FrameSampling(), weights="float32")


def test_the_command_needs_no_pytorch(clip_folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "onnxscript", "onnxruntime"):
    sys.modules[name] = None
sys.argv = ["hbi-export", "clip", {str(clip_folder)!r}, "-o", {str(tmp_path / "bundle")!r}]
from hbi_export.cli import main
main()
"""
    made = run_python(code)
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith(" MB\n")
    Bundle.load(tmp_path / "bundle").verify()
