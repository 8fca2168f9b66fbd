"""Bundles in other precisions, and the gate that they pass, on real clips of shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hbi_engines.half_products import halve_products
from hbi_export.bundle import export_bundle
from hbi_export.graphs.stored_weights import store_weights, widen_weights
from hbi_export.options import CheckData
from hbi_export.precision.calibration import read_calibration
from hbi_export.precision.compared_model import compared_bundle, compared_checkpoint, model_at
from hbi_export.precision.gate import GATED, Comparison, PrecisionReport, compare_models, load_clips
from hbi_export.precision.measurement import measure_model
from hbi_export.precision.quantize import BundlePrecision, Gate, quantized_bundle, write_quantized
from hbi_export.tensorrt.graph import for_tensorrt
from hbi_infer import HBI
from hbi_infer.errors import BundleError, EngineError, ExportError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_training.data.shapes import write_shapes
from hbi_training.evaluation.evaluate import evaluate
from hbi_training.weights.checkpoint import save_checkpoint
from hbi_training.weights.rounding import ROUNDED_FROM
from tests.builders.tiny_bundle import COLOURS, write_part_of_embedded, write_tiny_bundle, write_video
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION
from tests.export.test_bundle import ANSWERS, tiny_checkpoint, with_parts

NUM_TEST = 48
ONE_CLIP = 100 / NUM_TEST
"""In points of a recall."""
LEVELS = ("entity", "action", "event")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CheckData:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 24, 2, NUM_TEST, seed=5, workers=1)
    return CheckData(folder, workers=0)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What of the embedded bundle searches and explains."""
    folder = tmp_path_factory.mktemp("embedded") / "bundle"
    return write_part_of_embedded(folder, "video_encoder", "text_encoder", "interaction")


@pytest.fixture(scope="module")
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


def hbi_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hbi_export.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def quantized(source: Bundle, folder: Path, precision: BundlePrecision) -> Bundle:
    assert write_quantized(quantized_bundle(source, precision), source, folder) is None
    return Bundle.load(folder)


def with_weights(source: Bundle, folder: Path, scale: float) -> Bundle:
    """The bundle with noise in each large weight of the video encoder, `scale` times as strong as the weight."""
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(source.graph_bytes("video_encoder"))
    widen_weights(model)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= ROUNDED_FROM:
            values = numpy_helper.to_array(weight)
            noise = scale * values.std() * rng.normal(size=values.shape)
            weight.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
    graphs = {name: source.graph_bytes(name) for name in source.manifest.graphs}
    graphs["video_encoder"] = model.SerializeToString()
    write_bundle(folder, source.manifest, graphs, source.tokenizer_json())
    return Bundle.load(folder)


def operators(bundle: Bundle, graph: str) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(bundle.graph_bytes(graph)).graph.node)


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


def test_layers_are_in_int8_and_what_is_fragile_is_not(int8: Bundle) -> None:
    for name in ("video_encoder", "text_encoder"):
        graph = onnx.load_from_string(int8.graph_bytes(name)).graph
        makers = {output: node for node in graph.node for output in node.output}
        whole = {
            node.output[0]
            for node in graph.node
            if node.op_type in ("MatMul", "Gemm", "Conv")
            and all(makers[part].op_type == "DequantizeLinear" for part in node.input[:2] if part in makers)
            and node.input[1] in makers
        }
        products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
        assert 10 <= len(whole) < len(products)
        dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
        readers = {node.op_type for node in graph.node if dequantized & set(node.input)}
        assert readers <= {"MatMul", "Gemm", "Conv"}
        # All behind the tokens of the first level stays.
        behind, found = {"entity_tokens"}, False
        for node in graph.node:
            if behind & set(node.input):
                behind.update(node.output)
                assert node.output[0] not in whole
                found = True
        assert found


def test_a_clip_in_int8_does_not_depend_on_its_batch(data: CheckData, int8: Bundle) -> None:
    hbi = HBI(int8, device="cpu")
    clips = load_clips(data, compared_bundle(int8, "cpu"))
    frames, mask = clips.cache[np.arange(4)]
    together, alone = hbi.encode_video(frames, mask), hbi.encode_video(frames[:1], mask[:1])
    texts = ["a small red circle moves left", "a ring blinks, and then a big blue square and a star spin"]
    long, short = hbi.encode_text(texts), hbi.encode_text(texts[:1])
    length = short["entity"].tokens.shape[1]
    for one, other in (
        (alone["entity"].tokens, together["entity"].tokens[:1]),
        (short["entity"].tokens, long["entity"].tokens[:1, :length]),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


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


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A checkpoint that is quickly exported, and its bundle."""
    folder = tmp_path_factory.mktemp("pooled")
    checkpoint = tiny_checkpoint(MEAN_POOLED_SECTION)
    save_checkpoint(checkpoint, folder / "model")
    export_bundle(checkpoint, folder / "bundle")
    return folder / "model", Bundle.load(folder / "bundle")


def test_weights_of_half_precision_are_stored_in_it(pooled: tuple[Path, Bundle], tmp_path: Path) -> None:
    source = pooled[1]
    half = quantized(source, tmp_path / "half", "fp16")
    sizes, halves = source.sizes_bytes(), half.sizes_bytes()
    assert halves["video_encoder.onnx"] < 0.7 * sizes["video_encoder.onnx"]
    weights = onnx.load_from_string(half.graph_bytes("video_encoder")).graph.initializer
    assert TensorProto.FLOAT16 in {weight.data_type for weight in weights}


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


def test_without_texts_the_text_encoder_stays(embedded: Bundle, tmp_path: Path) -> None:
    write_video(tmp_path / "red.mp4", "red")
    made = quantized_bundle(embedded, "int8", read_calibration(tmp_path, embedded))
    assert set(made.unchanged) == made.graphs.keys() - {"video_encoder"}
    assert made.manifest.graphs["text_encoder"] == embedded.manifest.graphs["text_encoder"]


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


def test_another_model_is_no_reference(data: CheckData, embedded: Bundle, tmp_path: Path) -> None:
    other = compared_bundle(Bundle.load(write_tiny_bundle(tmp_path / "tiny")), "cpu")
    with pytest.raises(ExportError, match=r"tiny on cpu has another frame sampling than .*that it was made from"):
        compare_models(compared_bundle(embedded, "cpu"), [other], data, max_drop=0.5)
    with pytest.raises(ExportError, match="there is nothing at /nowhere: give a bundle, or a checkpoint"):
        model_at(Path("/nowhere"), "cpu")


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


def test_nothing_to_calibrate_with(embedded: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 needs real videos to measure ranges on: give --calibrate"):
        quantized_bundle(embedded, "int8")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(ExportError, match="holds no video that can be decoded; --calibrate takes a folder of videos"):
        read_calibration(tmp_path, embedded)


def test_an_int8_bundle_is_an_end(int8: Bundle) -> None:
    with pytest.raises(ExportError, match=r"video_encoder of .* is in int8 already: give the bundle it was made from"):
        quantized_bundle(int8, "fp16")
    with pytest.raises(ExportError, match="the graph is quantised to int8 for processors: build engines of the bundle"):
        for_tensorrt(int8.graph_bytes("video_encoder"), "fp16")


def test_quantised_products_are_not_halved(int8: Bundle) -> None:
    model = onnx.load_from_string(int8.graph_bytes("text_encoder"))
    readers = {name: node for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    before = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"} & readers.keys()
    halve_products(model.graph, "bf16")
    after = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    assert before
    assert before <= after
    assert any(node.op_type == "Cast" and node.attribute[0].i == TensorProto.BFLOAT16 for node in model.graph.node)
    again = model.SerializeToString()
    halve_products(model.graph, "bf16")
    assert model.SerializeToString() == again


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_stored_weights_are_widened_to_what_they_were(stored: str) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(-127, 128, (64, 32))
    whole[0] = 127
    weight = (whole * rng.uniform(0.001, 0.002, 32)).astype(np.float32)
    if stored == "float16":
        weight = weight.astype(np.float16).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])
        for name, size in (("x", 64), ("y", 32))
    ]
    graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph)
    store_weights(model, stored)  # type: ignore[arg-type]
    assert len(model.graph.node) > 1
    widen_weights(model)
    assert [part.op_type for part in model.graph.node] == ["MatMul"]
    (back,) = model.graph.initializer
    np.testing.assert_allclose(numpy_helper.to_array(back), weight, rtol=1e-6)
