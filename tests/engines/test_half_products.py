"""Which products of a graph become half precision, and what that does to the embedded model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hbi_engines.half_products import HALF_TYPES, Precision, halve_products
from hbi_engines.registry import open_engine
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.tokenizer import Tokenizer

HALVES: tuple[Precision, ...] = ("fp16", "bf16")
DIFFERENCE = {"fp16": 2e-3, "bf16": 2e-2}
"""Of the largest value of an output."""


def attention_and_clustering() -> onnx.ModelProto:
    """x (B, N, 4): an attention with a mask, then distances of all pairs and a softmax that makes weights."""
    nodes = [
        helper.make_node("Cast", ["stored"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["layer"]),
        helper.make_node("Transpose", ["layer"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["layer", "keys"], ["logits"]),
        helper.make_node("Mul", ["logits", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "zero"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["chances"], axis=-1),
        helper.make_node("MatMul", ["chances", "layer"], ["attended"]),
        helper.make_node("Transpose", ["attended"], ["others"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["attended", "others"], ["distances"]),
        helper.make_node("Softmax", ["distances"], ["weights"], axis=-1),
        helper.make_node("Mul", ["weights", "distances"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "N", "N"])],
        [
            numpy_helper.from_array(np.arange(16, dtype=np.float16).reshape(4, 4) / 16, "stored"),
            numpy_helper.from_array(np.float32(0.5), "half"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("precision", HALVES)
def test_layers_and_attentions_are_halved_and_distances_are_not(precision: Precision) -> None:
    model = attention_and_clustering()
    halve_products(model.graph, precision)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    products = {node.output[0]: types[node.output[0]] for node in inferred.graph.node if node.op_type == "MatMul"}
    half = HALF_TYPES[precision]
    assert products == {
        "layer_product": half,
        "logits_product": half,
        "attended_product": half,
        "distances": TensorProto.FLOAT,
    }
    assert {types[name] for name in ("layer", "scaled", "chances", "attended")} == {TensorProto.FLOAT}
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (expected,) = ReferenceEvaluator(attention_and_clustering()).run(None, {"x": x})
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert 0 < np.abs(found - expected).max() < DIFFERENCE[precision] * np.abs(expected).max()


def test_float32_changes_nothing() -> None:
    model = attention_and_clustering()
    halve_products(model.graph, "fp32")
    assert model == attention_and_clustering()


@pytest.mark.parametrize("precision", HALVES)
def test_the_embedded_text_encoder_in_half_precision(precision: Precision) -> None:
    bundle = Bundle.load(default_bundle_path())
    batch = Tokenizer.from_json(bundle.tokenizer_json()).encode(["a small red circle moves left"], 36)
    inputs = {"token_ids": batch.ids, "token_mask": batch.mask}
    content = bundle.graph_bytes("text_encoder")
    expected = open_engine(content, "cpu", threads=1).run(inputs)
    model = onnx.load_from_string(content)
    halve_products(model.graph, precision)
    # ONNX Runtime computes half precision in float32 on the processor; the reference rounds as a GPU does.
    found = dict(zip(expected, ReferenceEvaluator(model).run(list(expected), inputs), strict=True))
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        if name.endswith("_tokens"):
            difference = np.abs(found[name] - array).max() / np.abs(array).max()
            assert 1e-5 < difference < DIFFERENCE[precision], name
    if precision == "fp16":
        engine = open_engine(model.SerializeToString(), "cpu", threads=1)
        assert [spec.name for spec in engine.outputs] == list(expected)
