"""The gate of a release, on real clips of shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hbi_export.options import CheckData
from hbi_export.precision.compared_model import compared_bundle
from hbi_export.precision.gate import GATED, Comparison, PrecisionReport, compare_models, load_clips
from hbi_export.precision.measurement import measure_model
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle, write_bundle
from tests.builders.exports import (
    hbi_export,
    with_weights,
)
from tests.builders.tiny_bundle import COLOURS, write_tiny_bundle, write_video
from tests.export.precision.conftest import ONE_CLIP


def test_int8_holds_in_openvino_too(data: CheckData, embedded: Bundle, int8: Bundle) -> None:
    """The command has seen to ONNX Runtime."""
    report = compare_models(
        compared_bundle(embedded, "cpu"), [compared_bundle(int8, "openvino")], data, max_drop=3 * ONE_CLIP
    )
    report.require()
    for part in report.comparisons:
        assert part.reference["text_to_video/R@1"] > 70
        assert part.changes.keys() >= {"text_to_video/R@1", "video_to_text/R@1"}
        checks = {(check.graph, check.output): check for check in part.checks}
        for side in ("video_encoder", "text_encoder"):
            entity = checks[side, "entity_tokens"]
            assert 1e-4 < entity.largest_difference < 0.1  # rounded, and not by much
            assert 0.99 < entity.cosine <= entity.median_cosine < 1
        # It is given the same tokens.
        assert checks["interaction", "entity_interaction"].largest_difference < 1e-4


def test_a_bundle_that_was_sabotaged_is_refused(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    bad = with_weights(embedded, tmp_path / "bad", 2.0)
    arguments = ("--against", embedded.path, "--data", data.folder, "--num", 40, "--json")
    done = hbi_export("check", bad.path, *arguments)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"error: refused: {bad.path} on cpu: text_to_video/R@1 falls by ")
    assert "video_to_text/R@1 falls by" in error
    assert "one of 40 clips is 2.50 points" in error
    report = json.loads(done.stdout)
    (side,) = report["sides"]
    assert report["clips"] == 40
    assert len(side["refused"]) == 2
    assert side["changes"]["text_to_video/R@1"] < -10
    tensors = {(check["graph"], check["output"]): check for check in side["tensors"]}
    assert tensors["video_encoder", "entity_tokens"]["median_cosine"] < 0.9
    assert tensors["text_encoder", "entity_tokens"]["largest_difference"] == 0


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> CheckData:
    """Clips of one colour each, what they are called, and a question about each."""
    folder = tmp_path_factory.mktemp("colours")
    asked = {"question": "what colour is it?", "type": "colour"}
    lines = [
        {
            "video": write_video(folder / f"{colour}.mp4", colour).name,
            "captions": [f"a {colour} video"],
            "questions": [{**asked, "answer": colour}],
        }
        for colour in COLOURS
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return CheckData(folder, workers=0)


@pytest.mark.parametrize(
    ("graph", "weight", "metric"),
    [
        ("answerer", "for_video", "answer/accuracy falls by 100.00 points, from 100.00 to 0.00"),
        ("captioner_step", "colour_words", "caption/CIDEr falls by "),
    ],
)
def test_each_task_has_its_gate(colours: CheckData, tmp_path: Path, graph: str, weight: str, metric: str) -> None:
    good = Bundle.load(write_tiny_bundle(tmp_path / "good", "qa", "caption"))
    model = onnx.load_from_string(good.graph_bytes(graph))
    tensor = next(part for part in model.graph.initializer if part.name == weight)
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), weight))
    graphs = {name: good.graph_bytes(name) for name in good.manifest.graphs} | {graph: model.SerializeToString()}
    write_bundle(tmp_path / "bad", good.manifest, graphs, good.tokenizer_json())
    sides = [compared_bundle(good, "cpu"), compared_bundle(Bundle.load(tmp_path / "bad"), "cpu")]
    same, bad = compare_models(compared_bundle(good, "cpu"), sides, colours, max_drop=0.5).comparisons
    assert same.changes == pytest.approx(dict.fromkeys(GATED, 0.0), abs=1e-6)
    assert {check.graph for check in same.checks} == set(good.manifest.graphs)
    assert all(check.largest_difference < 1e-3 for check in same.checks)
    (fall,) = bad.falls(0.5)
    assert fall.startswith(metric)


def test_a_metric_may_fall_by_as_much_as_is_allowed(embedded: Bundle) -> None:
    side = compared_bundle(embedded, "cpu", name="model")
    metrics = {"text_to_video/R@1": 50.0, "caption/CIDEr": 90.0, "text_to_video/R@5": 10.0}
    reference = {"text_to_video/R@1": 50.5, "caption/CIDEr": 90.6, "text_to_video/R@5": 80.0, "answer/accuracy": 50.0}
    part = Comparison(side, [], metrics, reference)
    assert part.falls(0.5) == ["caption/CIDEr falls by 0.60 points, from 90.60 to 90.00"]
    PrecisionReport(side, 200, 0.7, [part]).require()
    with pytest.raises(ExportError, match=r"^refused: model on cpu: caption/CIDEr falls by .*one of 200 clips is 0.50"):
        PrecisionReport(side, 200, 0.5, [part]).require()
    assert Comparison(side, [], {"caption/CIDEr": float("nan")}, reference).falls(0.5)


def test_values_that_are_no_numbers_are_refused(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    bad = with_weights(embedded, tmp_path / "bad", np.inf)
    with pytest.raises(ExportError, match=r"bad on cpu is refused: its video_encoder gives .* not numbers"):
        measure_model(compared_bundle(bad, "cpu"), load_clips(data, compared_bundle(bad, "cpu")))
