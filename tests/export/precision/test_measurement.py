"""What is measured of a model: each output of each of its graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hbi_export.options import CheckData
from hbi_export.precision.compared_model import compared_bundle
from hbi_export.precision.gate import compare_models, load_clips
from hbi_export.precision.measurement import measure_model
from hbi_infer.model.bundle import Bundle, default_bundle_path, write_bundle
from hbi_training.data.shapes import write_shapes
from tests.builders.tiny_bundle import write_part_of_embedded

NUM_CLIPS = 20
"""More than a batch of the measurement, and no multiple of it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CheckData:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 2, 2, NUM_CLIPS, seed=5, workers=1)
    return CheckData(folder, workers=0)


def test_every_output_of_every_graph_is_measured(data: CheckData) -> None:
    bundle = Bundle.load(default_bundle_path())
    model = compared_bundle(bundle, "cpu")
    found = measure_model(model, load_clips(data, model)).outputs
    declared = {name: {output.name for output in spec.outputs} for name, spec in bundle.manifest.graphs.items()}
    assert {name: set(outputs) for name, outputs in found.items()} == declared
    num_texts = min(64, len(found["text_encoder"]["entity_tokens"]))
    assert found["similarity"]["scores"].shape == (num_texts, num_texts)  # all meet all


def test_a_similarity_that_computes_something_else_is_seen(data: CheckData, tmp_path: Path) -> None:
    """No metric falls by it: NumPy computes the scores that are measured."""
    good = write_part_of_embedded(tmp_path / "good", "video_encoder", "text_encoder", "similarity")
    graph = onnx.load_from_string(good.graph_bytes("similarity"))
    graph.graph.node[-1].output[0] = "right"
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(1.5), "wrong"))
    graph.graph.node.append(onnx.helper.make_node("Mul", ["right", "wrong"], [graph.graph.output[0].name]))
    graphs = {name: good.graph_bytes(name) for name in good.manifest.graphs}
    write_bundle(
        tmp_path / "bad",
        good.manifest,
        graphs | {"similarity": graph.SerializeToString()},
        good.tokenizer_json(),
    )
    bad = compared_bundle(Bundle.load(tmp_path / "bad"), "cpu")
    (comparison,) = compare_models(compared_bundle(good, "cpu"), [bad], data).comparisons
    differences = {check.graph: check.largest_difference for check in comparison.checks}
    assert differences["similarity"] == pytest.approx(0.5, abs=1e-3)
    assert differences["video_encoder"] == 0
