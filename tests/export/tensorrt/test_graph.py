"""Graphs as TensorRT takes them."""

from __future__ import annotations

import numpy as np
import onnx

from hbi_engines.registry import open_engine
from hbi_export.tensorrt.graph import for_tensorrt
from hbi_infer.model.bundle import Bundle, default_bundle_path


def test_the_graph_asks_for_plugins_only_where_they_are_wanted() -> None:
    """Either way it runs in ONNX Runtime, and to the same result."""
    content = Bundle.load(default_bundle_path()).graph_bytes("interaction")
    engines = []
    for plugins in (False, True):
        changed = for_tensorrt(content, "fp16", plugins=plugins)
        names = {part.name for node in onnx.load_from_string(changed).graph.node for part in node.attribute}
        assert plugins == ({"plugin_namespace", "plugin_version"} <= names)
        engines.append(open_engine(changed, "cpu", 1))
    rng = np.random.default_rng(0)
    inputs = {
        spec.name: rng.uniform(0.1, 1, [size if isinstance(size, int) else 2 for size in spec.shape]).astype(np.float32)
        for spec in engines[0].inputs
    }
    one, other = (engine.run(inputs) for engine in engines)
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array)
