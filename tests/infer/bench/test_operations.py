"""Counting the operations of graphs, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hbi_infer.bench.operations import count_operations
from hbi_infer.model.bundle import Bundle, default_bundle_path


def graph(nodes: list[object], shapes: dict[str, list[int | str | None]], weights: dict[str, tuple[int, ...]]) -> bytes:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_products_count_a_multiplication_and_an_addition_each() -> None:
    content = graph([helper.make_node("MatMul", ["a", "b"], ["out"])], {"a": ["batch", 5, 7]}, {"b": (7, 3)})
    assert count_operations(content, {"a": floats(4, 5, 7)}) == 2 * 4 * 5 * 7 * 3
    assert count_operations(content, {"a": floats(1, 5, 7)}) == 2 * 5 * 7 * 3


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_layer_counts_the_same_however_it_is_stored(left: int, right: int) -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["out"], transA=left, transB=right)
    content = graph([node], {"a": [None, None]}, {"b": (3, 7) if right else (7, 3)})
    assert count_operations(content, {"a": floats(*((7, 4) if left else (4, 7)))}) == 2 * 4 * 7 * 3


def test_a_convolution_counts_its_kernel_at_every_place() -> None:
    node = helper.make_node("Conv", ["a", "b"], ["out"], strides=[2, 2], group=2)
    content = graph([node], {"a": ["batch", 6, 9, 9]}, {"b": (8, 3, 3, 3)})
    assert count_operations(content, {"a": floats(2, 6, 9, 9)}) == 2 * (2 * 8 * 4 * 4) * (3 * 3 * 3)


def test_a_product_of_what_depends_on_values_counts_as_it_is_computed() -> None:
    nodes = [
        helper.make_node("Greater", ["c", "zero"], ["is_kept"]),
        helper.make_node("Compress", ["a", "is_kept"], ["some"], axis=0),
        helper.make_node("MatMul", ["some", "b"], ["out"]),
    ]
    content = graph(nodes, {"a": [5, 7], "c": [5]}, {"b": (7, 3), "zero": ()})
    kept = np.array([1, 0, 1, 0, 0], np.float32)
    assert count_operations(content, {"a": floats(5, 7), "c": kept}) == 2 * 2 * 7 * 3
    nothing = graph([helper.make_node("Neg", ["a"], ["out"])], {"a": [5]}, {})
    assert count_operations(nothing, {"a": floats(5)}) == 0


def test_operations_of_the_embedded_text_encoder_grow_with_texts() -> None:
    content = Bundle.load(default_bundle_path()).graph_bytes("text_encoder")
    one, eight = (
        count_operations(content, {"token_ids": np.ones((n, 12), np.int64), "token_mask": np.ones((n, 12), bool)})
        for n in (1, 8)
    )
    assert eight == 8 * one
    assert 1e7 < one < 1e8
