"""A bundle in another precision: half precision of all layers and attentions, or encoders in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import onnx
from onnx import helper, numpy_helper

import hbi_infer
from hbi_engines.half_products import HALF_TYPES, PRODUCTS, halve_products, set_nodes
from hbi_engines.registry import RUNTIMES
from hbi_export.graphs.modules import Arrays
from hbi_export.graphs.stored_weights import store_weights
from hbi_export.precision.calibration import Calibration
from hbi_export.precision.compared_model import Side, bundle_side
from hbi_export.precision.gate import CheckData, PrecisionReport, compare_sides
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
"""Where a bundle is measured: on the first that can run here. ONNX Runtime has no bfloat16 on processors."""


@dataclass(frozen=True)
class QuantizedBundle:
    """What is to be written.

    Attributes:
        manifest: Without hashes.
        graphs: Name -> serialised ONNX model.
        tokenizer_json: As it was.
        unchanged: Graphs that stayed as they were.
    """

    manifest: BundleManifest
    graphs: dict[str, bytes]
    tokenizer_json: str
    unchanged: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """How a quantised bundle is measured before it is written.

    Attributes:
        data: Clips.
        devices: On each of these.
        max_drop: By how many points a metric may fall.
        on_side: Called before a side is measured.
    """

    data: CheckData
    devices: Sequence[str]
    max_drop: float
    on_side: Callable[[Side], None] = lambda _: None


def quantized_bundle(
    source: Bundle, precision: BundlePrecision, calibration: Calibration | None = None
) -> QuantizedBundle:
    """Every graph of a bundle in a precision. Tokenizer, answers, levels and sampling stay as they are.

    Args:
        source: In float32, however its weights are stored.
        precision: "fp16" and "bf16" are for products of layers and attentions of all graphs; "int8" is for the layers
            of the encoders, of the text encoder only where there are texts to calibrate with.
        calibration: Needed for int8.

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
    for name, spec in manifest.graphs.items():
        content = source.graph_bytes(name)
        made = content
        if precision != "int8":
            made = _halved(content, precision)
        elif batches := _batches_of(name, calibration):
            made = _stored(quantized_graph(content, manifest.levels[0].name, batches), spec.precision)
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
    made: QuantizedBundle, source: Bundle, folder: Path, gate: Gate | None = None
) -> PrecisionReport | None:
    """Writes a quantised bundle once it has passed the gate; its manifest then says what it scored.

    Args:
        made: The bundle.
        source: What it was made of, the reference of the gate.
        folder: Where to write it.
        gate: None to write it unmeasured.

    Returns:
        What the gate measured, refused or not: nothing is written unless `PrecisionReport.require` passes.

    Raises:
        BundleError: It cannot be written there.
    """
    if gate is None:
        write_bundle(folder, made.manifest, made.graphs, made.tokenizer_json)
        return None
    require_bundle_folder(folder)  # before minutes of measuring
    with tempfile.TemporaryDirectory() as temporary:
        unreleased = Path(temporary) / "bundle"
        write_bundle(unreleased, made.manifest, made.graphs, made.tokenizer_json)
        sides = [bundle_side(Bundle.load(unreleased), device, name=str(folder)) for device in gate.devices]
        report = compare_sides(
            bundle_side(source, "cpu"), sides, gate.data, max_drop=gate.max_drop, on_side=gate.on_side
        )
    if not any(part.falls(gate.max_drop) for part in report.comparisons):
        found = {**report.comparisons[0].metrics, "clips": report.num_clips}
        metrics = {f"{gate.data.split}/{name}": round(value, 3) for name, value in found.items()}
        provenance = replace(made.manifest.provenance, metrics=metrics)
        write_bundle(folder, replace(made.manifest, provenance=provenance), made.graphs, made.tokenizer_json)
    return report


def gate_device(precision: BundlePrecision) -> str:
    """Where to measure a bundle if nobody says."""
    *others, last = GATE_DEVICES[precision]
    return next((device for device in others if not RUNTIMES[device].problem()), last)


def _batches_of(graph: str, calibration: Calibration | None) -> Sequence[Arrays]:
    assert calibration is not None
    return {"video_encoder": calibration.clips, "text_encoder": calibration.texts}.get(graph, ())


def _halved(content: bytes, precision: Literal["fp16", "bf16"]) -> bytes:
    """The graph with products in half precision, whose float32 weights are stored so; itself if it has no products."""
    model = onnx.load_from_string(content)
    # ONNX has convolutions in bfloat16 from opset 22 on.
    halve_products(model.graph, precision, PRODUCTS - {"Conv"} if precision == "bf16" else PRODUCTS)
    if not any(node.op_type == "Cast" and node.attribute[0].i == HALF_TYPES[precision] for node in model.graph.node):
        return content
    _round_weights(model.graph, HALF_TYPES[precision])
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _round_weights(graph: onnx.GraphProto, to: int) -> None:
    """Does the casts of weights to half precision, where no other node needs them in float32."""
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
    """With the weights that stay in float32 stored as those of the source were, which loses nothing."""
    stored: dict[str, Weights] = {"float16 weights": "float16", "int8 weights": "int8"}
    model = onnx.load_from_string(content)
    store_weights(model, stored.get(precision, "float32"))
    return model.SerializeToString(deterministic=True)
