"""Converted CLIP and SigLIP in other precisions, on every runtime, and as engines: as exported bundles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from hbi_engines.kernels.definitions import KERNELS
from hbi_export.options import BuildOptions
from hbi_export.precision.calibration import Calibration
from hbi_export.precision.quantize import BundlePrecision, quantized_bundle, write_quantized
from hbi_export.tensorrt.build import build_engines
from hbi_export.tensorrt.graph import for_tensorrt
from hbi_infer.convert.converter import convert_model
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from tests.builders.command_line import run
from tests.builders.saved_models import save, save_siglip, tiny_clip, tiny_siglip
from tests.infer.convert.test_clip import frames_of

TEXTS = ["a dog on a beach", "two cars"]
KINDS = ("clip", "siglip")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("converted")
    save(tiny_clip(), folder / "clip", size=32, crop_size=32)
    save_siglip(tiny_siglip(), folder / "siglip")
    for kind in KINDS:
        convert_model(folder / kind, folder / f"{kind}.bundle", name=kind)
    return {kind: Bundle.load(folder / f"{kind}.bundle") for kind in KINDS}


def cosines(one: Bundle, other: Bundle) -> list[float]:
    """The least cosine of the texts' tokens, and of the clips'."""
    frames, mask = frames_of(32)
    found = []
    for tokens in (
        [TokenModel(bundle, device="cpu").encode_text(TEXTS)["video"].tokens for bundle in (one, other)],
        [TokenModel(bundle, device="cpu").encode_video(frames, mask)["video"].tokens for bundle in (one, other)],
    ):
        units = [part / np.linalg.norm(part, axis=-1, keepdims=True) for part in tokens]
        found.append(float((units[0] * units[1]).sum(-1).min()))
    return found


def calibration(bundle: Bundle) -> Calibration:
    frames, mask = frames_of(32)
    batch = TokenModel(bundle, device="cpu").tokenize(TEXTS)
    texts = [{"token_ids": batch.ids, "token_mask": batch.mask}]
    return Calibration([{"frames": frames, "frame_mask": mask}], texts, "noise")


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.9999), ("int8", 0.98)])
@pytest.mark.parametrize("kind", KINDS)
def test_other_precisions(
    kind: str, precision: BundlePrecision, least: float, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    source = bundles[kind]
    made = quantized_bundle(source, precision, calibration(source))
    assert made.unchanged == ("clip_encoder",), "which has no layers"
    write_quantized(made, source, tmp_path / precision)
    written = Bundle.load(tmp_path / precision)
    assert {name: spec.precision for name, spec in written.manifest.graphs.items()} == {
        "frame_encoder": precision,
        "clip_encoder": "float32",
        "text_encoder": precision,
    }
    assert min(cosines(source, written)) > least
    assert written.manifest.provenance.origin == source.manifest.provenance.origin


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_attentions_are_found(kind: str, bundles: dict[str, Bundle]) -> None:
    """All products are in half precision for TensorRT: those of layers, and both of each attention."""
    for name in ("frame_encoder", "text_encoder"):
        graph = onnx.load_from_string(for_tensorrt(bundles[kind].graph_bytes(name), "fp16")).graph
        casts = {node.output[0] for node in graph.node if node.op_type == "Cast"}
        products = [node for node in graph.node if node.op_type == "MatMul"]
        single = [node.name for node in products if not casts.issuperset(node.input)]
        assert len(products) > 15
        assert set(single) <= {"mean", "head.values"}, "the mean of frames, and one product of the pooling"
        assert not {node.op_type for node in graph.node} & KERNELS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_tensorrt_rtx_are_built(kind: str, bundles: dict[str, Bundle]) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = BuildOptions(flavor="rtx", precision="fp16", gpus=("sm86", "sm89"))
    records, failures = build_engines(bundles[kind].path, options)
    assert not failures
    assert {record.graph for record in records} == {"frame_encoder", "clip_encoder", "text_encoder"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bench_measures_them(kind: str, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    made = run(
        *("bench", "--bundle", bundles[kind].path, "--device", "cpu,openvino", "--batch", "1", "--seconds", "0.02"),
        *("--stage", "encode,text encode", "--json", tmp_path / "all.json"),
    )
    assert made.returncode == 0, made.stderr  # 3 if a device gives other tokens than the first
    devices = json.loads((tmp_path / "all.json").read_text())["result"]["devices"]
    measured = {part["device"]: {each["stage"] for each in part["measurements"]} for part in devices}
    assert measured["cpu"] == measured["openvino"] == {"encode", "text encode"}
