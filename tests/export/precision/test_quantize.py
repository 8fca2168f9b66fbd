"""Bundles in other precisions."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from hbi_export.options import CheckData
from hbi_export.precision.compared_model import compared_bundle
from hbi_export.precision.gate import compare_models
from hbi_export.precision.quantize import BundlePrecision, Gate, quantized_bundle, write_quantized
from hbi_export.tensorrt.graph import for_tensorrt
from hbi_infer import HBI
from hbi_infer.errors import BundleError, EngineError, ExportError
from hbi_infer.model.bundle import Bundle
from tests.builders.exports import quantized, with_weights
from tests.export.precision.conftest import NUM_TEST


def test_what_an_int8_bundle_says_and_what_it_keeps(data: CheckData, embedded: Bundle, int8: Bundle) -> None:
    manifest = int8.manifest
    precisions = {name: spec.precision for name, spec in manifest.graphs.items()}
    assert precisions["video_encoder"] == precisions["text_encoder"] == "int8"
    provenance = manifest.provenance
    assert provenance.quantized_from == embedded.sha256
    assert provenance.calibration.startswith("24 clips and ")
    assert provenance.calibration.endswith(f"texts of {data.folder.name}")
    assert provenance.metrics["test/clips"] == NUM_TEST
    assert provenance.metrics["test/text_to_video/R@1"] > 70
    source = replace(embedded.manifest, graphs={}, tasks=(), answers=(), provenance=provenance)
    assert replace(manifest, graphs={}, tasks=(), answers=()) == source
    assert int8.tokenizer_json() == embedded.tokenizer_json()
    for name in manifest.graphs.keys() - {"video_encoder", "text_encoder"}:
        assert int8.graph_bytes(name) == embedded.graph_bytes(name)


@pytest.mark.parametrize(("precision", "device", "bound"), [("fp16", "cpu", 2e-3), ("bf16", "openvino", 2e-2)])
def test_half_precision_is_near(
    data: CheckData, embedded: Bundle, tmp_path: Path, precision: BundlePrecision, device: str, bound: float
) -> None:
    bundle = quantized(embedded, tmp_path / precision, precision)
    assert bundle.manifest.graphs["video_encoder"].precision == precision
    assert bundle.manifest.provenance.metrics == {}  # nobody measured it
    assert bundle.graph_bytes("interaction") == embedded.graph_bytes("interaction")
    few = replace(data, num=16)
    report = compare_models(compared_bundle(embedded, "cpu"), [compared_bundle(bundle, device)], few, max_drop=100 / 16)
    report.require()
    # ONNX Runtime widens fp16 to float32 on the processor, and says nothing of it.
    assert [line[:12] for line in report.caveats] == ([f"{tmp_path}"[:12]] if precision == "fp16" else [])
    for check in report.comparisons[0].checks:
        if check.output == "entity_tokens":
            assert check.largest_difference < bound


def test_bf16_is_valid_onnx_and_says_where_it_runs(embedded: Bundle, tmp_path: Path) -> None:
    bundle = quantized(embedded, tmp_path / "bf16", "bf16")
    onnx.checker.check_model(bundle.graph_bytes("video_encoder"), full_check=True)
    with pytest.raises(EngineError, match=r"video_encoder of .* is in bf16, which device cpu does not compute: use"):
        HBI(bundle, device="cpu").encode_video(np.zeros((1, 12, 64, 64, 3), np.uint8), np.ones((1, 12), bool))


def test_weights_of_half_precision_are_stored_in_it(pooled: tuple[Path, Bundle], tmp_path: Path) -> None:
    source = pooled[1]
    half = quantized(source, tmp_path / "half", "fp16")
    sizes, halves = source.sizes_bytes(), half.sizes_bytes()
    assert halves["frame_encoder.onnx"] < 0.7 * sizes["frame_encoder.onnx"]
    weights = onnx.load_from_string(half.graph_bytes("frame_encoder")).graph.initializer
    assert TensorProto.FLOAT16 in {weight.data_type for weight in weights}


def test_what_does_not_pass_the_gate_is_not_written(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    made = quantized_bundle(embedded, "fp16")
    bad = with_weights(embedded, tmp_path / "bad", 2.0)
    made = replace(made, graphs={**made.graphs, "video_encoder": bad.graph_bytes("video_encoder")})
    gate = Gate(replace(data, num=40), ["cpu"], max_drop=0.5)
    report = write_quantized(made, embedded, tmp_path / "out", gate)
    assert report is not None
    with pytest.raises(ExportError, match=r"^refused, it was not written: .*out on cpu: text_to_video/R@1 falls by"):
        report.require(", it was not written")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):  # before anything is measured
        write_quantized(made, embedded, tmp_path / "out", replace(gate, data=CheckData(Path("/nowhere"))))


def test_an_edited_graph_is_neither_quantised_nor_checked(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", embedded.path, tmp_path / "edited"], check=True)
    file = tmp_path / "edited" / "video_encoder.onnx"
    model = onnx.load(file)
    model.graph.node[0].doc_string = "edited"
    file.write_bytes(model.SerializeToString())
    edited = Bundle.load(tmp_path / "edited")
    with pytest.raises(BundleError, match=r"video_encoder\.onnx was altered or damaged .*export it again"):
        quantized_bundle(edited, "fp16")
    with pytest.raises(BundleError, match=r"video_encoder\.onnx was altered or damaged"):
        compare_models(
            compared_bundle(embedded, "cpu"), [compared_bundle(edited, "cpu")], replace(data, num=8), max_drop=0.5
        )


def test_an_int8_bundle_is_an_end(int8: Bundle) -> None:
    with pytest.raises(ExportError, match=r"video_encoder of .* is in int8 already: give the bundle it was made from"):
        quantized_bundle(int8, "fp16")
    with pytest.raises(ExportError, match="the graph is quantised to int8 for processors: build engines of the bundle"):
        for_tensorrt(int8.graph_bytes("video_encoder"), "fp16")
