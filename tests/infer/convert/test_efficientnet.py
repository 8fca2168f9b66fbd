from __future__ import annotations

import numpy as np
import pytest

from hbi_engines.engine import TensorSpec
from hbi_engines.registry import open_engine
from hbi_infer.convert.efficientnet import EfficientNetLite2
from hbi_infer.convert.onnx_builder import GraphBuilder
from hbi_infer.errors import BundleError
from tests.builders.lite2_weights import Weights, logits_in_torch, random_weights


def graph_of(weights: Weights) -> bytes:
    graph = GraphBuilder("lite2")
    pictures = graph.input(TensorSpec("pictures", "uint8", ("batch", 260, 260, 3)))
    logits = EfficientNetLite2(graph, weights).logits(pictures)
    graph.output(logits, TensorSpec("logits", "float32", ("batch", 1000)))
    return graph.serialised()


def test_logits_are_those_of_the_network_in_pytorch() -> None:
    weights = random_weights()
    pictures = np.random.default_rng(1).integers(0, 256, (2, 260, 260, 3), np.uint8)
    engine = open_engine(graph_of(weights), "cpu")
    found, expected = engine.run({"pictures": pictures})["logits"], logits_in_torch(weights, pictures)
    engine.close()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max(), "pictures make no difference"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "_blocks.3._depthwise_conv.weight",
            None,
            r"_blocks\.3\._depthwise_conv\.weight of EfficientNet-Lite2 are miss",
        ),
        ("_fc.weight", (1000, 1279), r"_fc\.weight of EfficientNet-Lite2 are of shape \(1000, 1279\); expected"),
        ("_bn1.running_var", (1,), r"_bn1\.running_var of EfficientNet-Lite2 are of shape \(1,\)"),
    ],
)
def test_weights_that_do_not_fit(name: str, shape: tuple[int, ...] | None, message: str) -> None:
    weights = random_weights()
    del weights[name]
    if shape is not None:
        weights[name] = np.zeros(shape, np.float32)
    with pytest.raises(BundleError, match=message):
        graph_of(weights)
