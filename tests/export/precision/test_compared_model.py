"""Bundles on devices and checkpoints in PyTorch, measured alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hbi_export.options import CheckData
from hbi_export.precision.compared_model import compared_bundle, compared_checkpoint, model_at
from hbi_export.precision.gate import compare_models, load_clips
from hbi_export.precision.measurement import measure_model
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle
from hbi_training.evaluation.evaluate import evaluate
from tests.builders.exports import ANSWERS, hbi_export, tiny_checkpoint, with_parts
from tests.builders.tiny_bundle import write_tiny_bundle
from tests.builders.tiny_training import HBI_SECTION


def test_a_checkpoint_is_measured_as_training_measures_it(data: CheckData) -> None:
    parts = {"answers": (*ANSWERS, "circle", "left"), "answer_widths": (16, 24), "caption_layers": 1}
    checkpoint = with_parts(tiny_checkpoint(HBI_SECTION), **parts, reconstruction_layers=1)
    eager = compared_checkpoint(checkpoint)
    clips = load_clips(replace(data, num=12), eager)
    expected = evaluate(checkpoint.model, clips.records, clips.cache, checkpoint.tokenizer).metrics
    found = measure_model(eager, clips)
    assert found.metrics.keys() >= {"text_to_video/R@1", "video_to_text/MnR", "answer/accuracy", "caption/CIDEr"}
    assert found.metrics == pytest.approx({name: expected[name] for name in found.metrics}, abs=1e-3)
    assert found.outputs.keys() == eager.graphs


def test_a_bundle_against_its_checkpoint(pooled: tuple[Path, Bundle], data: CheckData) -> None:
    checkpoint, bundle = pooled
    arguments = ("--against", checkpoint, "--data", data.folder, "--num", 12, "--device", "cpu,openvino")
    done = hbi_export("check", bundle.path, *arguments)
    assert done.returncode == 0, done.stderr
    devices = [f"{checkpoint} on eager", f"{bundle.path} on cpu", f"{bundle.path} on openvino"]
    assert done.stderr.splitlines() == [f"measuring {device}" for device in devices]
    assert "video_tokens" in done.stdout
    assert "text_to_video/R@1" in done.stdout


def test_another_model_is_no_reference(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    other = compared_bundle(Bundle.load(write_tiny_bundle(tmp_path / "tiny")), "cpu")
    with pytest.raises(ExportError, match=r"tiny on cpu has another frame sampling than .*that it was made from"):
        compare_models(compared_bundle(embedded, "cpu"), [other], data, max_drop=0.5)
    with pytest.raises(ExportError, match="there is nothing at /nowhere: give a bundle, or a checkpoint"):
        model_at(Path("/nowhere"), "cpu")
