"""Makes a bundle in another precision: all layers and attentions in half precision, or encoders in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import onnx
from onnx import helper, numpy_helper

import hbi_infer
from hbi_engines.engine import Arrays
from hbi_engines.half_products import HALF_TYPES, PRODUCTS, halve_products, set_nodes
from hbi_engines.registry import RUNTIMES, open_engine
from hbi_export.graphs.sample_inputs import clip_inputs
from hbi_export.graphs.stored_weights import store_weights
from hbi_export.options import MAX_DROP, CheckData
from hbi_export.precision.calibration import Calibration
from hbi_export.precision.compared_model import ComparedModel, compared_bundle
from hbi_export.precision.gate import PrecisionReport, compare_models
from hbi_export.precision.int8_graph import quantized_graph
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle, require_bundle_folder, write_bundle
from hbi_infer.model.manifest import BundleManifest
from hbi_training.weights.rounding import Weights

BundlePrecision: TypeAlias = Literal["fp16", "bf16", "int8"]
GATE_DEVICES: dict[BundlePrecision, tuple[str, ...]] = {
    "fp16": ("cuda", "cpu"),
    "bf16": ("cuda", "openvino"),
    "int8": ("cpu",),
}
"""Devices to measure a bundle on: the first that can run here. ONNX Runtime has no bfloat16 on processors."""


@dataclass(frozen=True)
class QuantizedBundle:
    """A bundle that is not written yet.

    Attributes:
        manifest: Manifest without hashes.
        graphs: Name -> serialised ONNX model.
        tokenizer_json: Text of the source's tokenizer file.
        unchanged: Names of the graphs that stayed as they were.
    """

    manifest: BundleManifest
    graphs: dict[str, bytes]
    tokenizer_json: str
    unchanged: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """Measurement that a quantised bundle must pass before it is written.

    Attributes:
        data: Clips to measure on.
        devices: Devices to measure on, each in turn.
        max_drop: Points by which a metric may fall.
        on_model: Called before a model is measured.
    """

    data: CheckData
    devices: Sequence[str]
    max_drop: float = MAX_DROP
    on_model: Callable[[ComparedModel], None] = lambda _: None


def quantized_bundle(
    source: Bundle, precision: BundlePrecision, calibration: Calibration | None = None
) -> QuantizedBundle:
    """Converts every graph of a bundle. Tokenizer, answers, levels and sampling stay as they are.

    Args:
        source: A bundle in float32, however its weights are stored.
        precision: "fp16" and "bf16" are for products of layers and attentions of all graphs; "int8" is for the layers
            of the encoders, of the text encoder only where there are texts to calibrate with.
        calibration: Real inputs to measure ranges on; needed for int8.

    Raises:
        ExportError: The bundle is not in float32, or there is nothing to calibrate int8 with.
        BundleError: A file of the bundle is not the one that was exported.
    """
    manifest = source.manifest
    for name, spec in manifest.graphs.items():
        if spec.precision in ("fp16", "bf16", "int8"):
            raise ExportError(
                f"{name} of {source.path} is in {spec.precision} already: give the bundle it was made from"
            )
    if precision == "int8" and calibration is None:
        raise ExportError("int8 needs real videos to measure ranges on: give --calibrate a folder of them")
    graphs, specs = {}, {}
    batches_of = _batches_of(source, calibration) if calibration and precision == "int8" else {}
    for name, spec in manifest.graphs.items():
        content = source.graph_bytes(name)
        made = content
        if precision != "int8":
            made = _halved(content, precision)
        elif batches := batches_of.get(name, ()):
            made = _quantized(content, manifest.levels[0].name, batches, spec.precision)
        graphs[name] = made
        specs[name] = spec if made is content else replace(spec, precision=precision)
    provenance = replace(
        manifest.provenance,
        code_version=hbi_infer.__version__,
        metrics={},  # what was measured was another precision
        quantized_from=source.sha256,
        calibration=calibration.source if calibration and precision == "int8" else "",
    )
    unchanged = tuple(name for name in graphs if specs[name] is manifest.graphs[name])
    made_manifest = replace(manifest, graphs=specs, provenance=provenance)
    return QuantizedBundle(made_manifest, graphs, source.tokenizer_json(), unchanged)


def write_quantized(
    made: QuantizedBundle, source: Bundle, folder: Path | str, gate: Gate | None = None
) -> PrecisionReport | None:
    """Writes a quantised bundle once it has passed the gate; its manifest then says what it scored.

    Args:
        made: The bundle.
        source: The bundle that it was made of, which is the reference of the gate.
        folder: Folder to write.
        gate: The gate; None to write the bundle unmeasured.

    Returns:
        Report of the gate, refused or not: nothing is written unless `PrecisionReport.require` passes.

    Raises:
        BundleError: It cannot be written there.
    """
    folder = Path(folder)
    others = source.other_contents()
    if gate is None:
        write_bundle(folder, made.manifest, made.graphs, made.tokenizer_json, others)
        return None
    require_bundle_folder(folder)  # before minutes of measuring
    with tempfile.TemporaryDirectory() as temporary:
        unreleased = Path(temporary) / "bundle"
        write_bundle(unreleased, made.manifest, made.graphs, made.tokenizer_json, others)
        models = [compared_bundle(Bundle.load(unreleased), device, name=str(folder)) for device in gate.devices]
        report = compare_models(
            compared_bundle(source, "cpu"), models, gate.data, max_drop=gate.max_drop, on_model=gate.on_model
        )
    if not any(part.falls(gate.max_drop) for part in report.comparisons):
        found = {**report.comparisons[0].metrics, "clips": report.num_clips}
        metrics = {f"{gate.data.split}/{name}": round(value, 3) for name, value in found.items()}
        provenance = replace(made.manifest.provenance, metrics=metrics)
        measured = replace(made.manifest, provenance=provenance)
        write_bundle(folder, measured, made.graphs, made.tokenizer_json, others)
    return report


def gate_device(precision: BundlePrecision) -> str:
    """Chooses the device to measure a bundle on, where none is given."""
    *others, last = GATE_DEVICES[precision]
    return next((device for device in others if not RUNTIMES[device].problem()), last)


def _batches_of(source: Bundle, calibration: Calibration) -> dict[str, Sequence[Arrays]]:
    """Returns the inputs of each encoder of a bundle."""
    batches: dict[str, Sequence[Arrays]] = {"text_encoder": calibration.texts}
    if "frame_encoder" not in source.manifest.graphs:
        return {**batches, "video_encoder": calibration.clips}
    engine = open_engine(source.graph_bytes("frame_encoder"), "cpu")
    frames = [{"frames": clips["frames"][clips["frame_mask"]]} for clips in calibration.clips]
    features = [clip_inputs(engine.run, clips) for clips in calibration.clips]
    return {**batches, "frame_encoder": frames, "clip_encoder": features}


def _quantized(content: bytes, first_level: str, batches: Sequence[Arrays], precision: str) -> bytes:
    """Converts the layers of an encoder to int8; a graph without weights stays as it is."""
    if not any(len(weight.dims) > 1 for weight in onnx.load_from_string(content).graph.initializer):
        return content
    return _stored(quantized_graph(content, first_level, batches), precision)


def _halved(content: bytes, precision: Literal["fp16", "bf16"]) -> bytes:
    """Converts products, and the weights that only they read, to half precision; a graph without any stays as it is."""
    model = onnx.load_from_string(content)
    # ONNX has convolutions in bfloat16 from opset 22 on.
    halve_products(model.graph, precision, PRODUCTS - {"Conv"} if precision == "bf16" else PRODUCTS)
    if not any(node.op_type == "Cast" and node.attribute[0].i == HALF_TYPES[precision] for node in model.graph.node):
        return content
    _round_weights(model.graph, HALF_TYPES[precision])
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _round_weights(graph: onnx.GraphProto, to: int) -> None:
    """Replaces casts of weights by weights in half precision."""
    weights = {weight.name: weight for weight in graph.initializer}
    nodes, rounded = [], {}
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == to and node.input[0] in weights:
            values = numpy_helper.to_array(weights[node.input[0]]).astype(helper.tensor_dtype_to_np_dtype(to))
            rounded[node.output[0]] = numpy_helper.from_array(values, node.output[0])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [onnx.TensorProto.FromString(weight.SerializeToString()) for name, weight in weights.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *rounded.values()])
    set_nodes(graph, nodes)


def _stored(content: bytes, precision: str) -> bytes:
    """Stores the weights that stay in float32 as those of the source were, which loses nothing."""
    stored: dict[str, Weights] = {"float16 weights": "float16", "int8 weights": "int8"}
    model = onnx.load_from_string(content)
    store_weights(model, stored.get(precision, "float32"))
    return model.SerializeToString(deterministic=True)
