"""Weights stored smaller, and widened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hbi_export.graphs.modules import trace_graph
from hbi_export.graphs.parity import check_graph, compare
from hbi_export.graphs.sample_inputs import random_video_inputs
from hbi_export.graphs.stored_weights import store_weights, widen_weights
from hbi_training.weights.checkpoint import Checkpoint
from hbi_training.weights.rounding import Weights, rounded


@pytest.mark.parametrize(("weights", "share"), [("float16", 0.7), ("int8", 0.5)])
def test_weights_stored_smaller(checkpoint: Checkpoint, tmp_path: Path, weights: Weights, share: float) -> None:
    full = trace_graph(checkpoint, "frame_encoder")
    rounded_checkpoint = replace(checkpoint, model=rounded(checkpoint.model, weights))
    graph = trace_graph(rounded_checkpoint, "frame_encoder", weights=weights)
    large = [
        weight for weight in onnx.load_from_string(graph.content).graph.initializer if np.prod(weight.dims) >= 1024
    ]
    assert large
    assert all(weight.data_type != onnx.TensorProto.FLOAT for weight in large)
    assert len(graph.content) < share * len(full.content)
    frames = {"frames": random_video_inputs(checkpoint.model.config.sampling)["frames"][:, 0]}
    assert not any(check.items_beyond for check in check_graph("frame_encoder", graph, {"random": frames}))
    far = compare("frame_encoder", "", "features", full.eager(frames)["features"], graph.eager(frames)["features"])
    assert 1e-5 < far.largest_difference < 0.05
    assert far.cosine > 0.999


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
