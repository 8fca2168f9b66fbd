"""The merging and the similarity as nodes: their functions in standard operators against NumPy, in two runtimes."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hbi_engines.engine import Engine
from hbi_engines.kernels.definitions import BANZHAF_INTERACTION, KERNELS, TOKEN_MERGE, TOKEN_SIMILARITY, Element, Kernel
from hbi_engines.registry import open_engine
from hbi_export.graphs.custom_ops import FUNCTIONS, add_functions
from hbi_export.graphs.modules import OPSET
from hbi_export.graphs.onnx_functions import DOMAIN, TENSOR_TYPES
from hbi_export.graphs.similarity_op import token_similarity
from hbi_export.graphs.token_merge_op import merging_as_nodes, token_merge
from hbi_training.model.token_merge import TokenMerge, merge_tokens
from tests.builders.kernel_games import (
    Arrays,
    assert_close,
    expected,
    in_element,
    merge_inputs,
    ragged,
    similarity_inputs,
)

DEVICES = [device for device in ("cpu", "openvino") if device == "cpu" or importlib.util.find_spec("openvino")]
AXES = {
    "similarity": ("B", "T", "V"),
    "text_mask": ("B", "T"),
    "video_mask": ("B", "V"),
    "tokens": ("B", "N", "D"),
    "score": ("B", "N"),
    "mask": ("B", "N"),
    "text_tokens": ("A", "T", "D"),
    "text_weights": ("A", "T"),
    "video_tokens": ("B", "V", "D"),
    "video_weights": ("B", "V"),
}
MERGING: dict[str, Any] = {"num_slots": 4, "ratio": 0.34, "neighbours": 3}


def node_model(kernel: Kernel, element: Element = "float32", **attributes: int | float) -> bytes:
    """A graph of a node alone, of any sizes."""
    float_type = TensorProto.FLOAT16 if element == "float16" else TensorProto.FLOAT
    types = {**TENSOR_TYPES, "element": float_type}
    node = helper.make_node(kernel.node, list(kernel.inputs), list(kernel.outputs), domain=DOMAIN, **attributes)
    axes = {**AXES, "text_weights": ("B", "T")} if kernel is BANZHAF_INTERACTION else AXES
    inputs = [helper.make_tensor_value_info(name, types[kind], axes[name]) for name, kind in kernel.inputs.items()]
    shapes = kernel.output_shapes([axes[name] for name in kernel.inputs], attributes)
    outputs = [
        helper.make_tensor_value_info(name, types[kind], shape)
        for (name, kind), shape in zip(kernel.outputs.items(), shapes, strict=True)
    ]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(helper.make_graph([node], "graph", inputs, outputs), opset_imports=opsets, ir_version=10)
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


MERGE_ENGINES = {device: open_engine(node_model(TOKEN_MERGE, **MERGING), device, 1) for device in DEVICES}


def run(engine: Engine, kernel: Kernel, inputs: Arrays) -> Arrays:
    """The outputs in the kernel's order and types."""
    found = engine.run({name: inputs[name] for name in kernel.inputs})
    return {
        name: found[name].astype(kind) if kind != "element" else found[name].astype(np.float32)
        for name, kind in kernel.outputs.items()
    }


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), tokens=st.integers(1, 12))
def test_merging_in_standard_operators(device: str, seed: int, batch: int, tokens: int) -> None:
    inputs = in_element(TOKEN_MERGE, merge_inputs(seed, batch=batch, tokens=tokens), "float32")
    wanted = expected(TOKEN_MERGE, inputs, **MERGING)
    assert_close(TOKEN_MERGE, run(MERGE_ENGINES[device], TOKEN_MERGE, inputs), wanted, "float32")
    eager = merge_tokens(*map(torch.from_numpy, inputs.values()), **MERGING)
    assert_close(
        TOKEN_MERGE, dict(zip(TOKEN_MERGE.outputs, (part.numpy() for part in eager), strict=True)), wanted, "float32"
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padding_is_zero", [0, 1])
def test_similarity_in_standard_operators(device: str, padding_is_zero: int) -> None:
    engine = open_engine(node_model(TOKEN_SIMILARITY, padding_is_zero=padding_is_zero), device, 1)
    for seed in range(3):
        inputs = in_element(TOKEN_SIMILARITY, similarity_inputs(seed, texts=1 + seed, words=2 + seed), "float32")
        wanted = expected(TOKEN_SIMILARITY, inputs, padding_is_zero=padding_is_zero)
        assert_close(TOKEN_SIMILARITY, run(engine, TOKEN_SIMILARITY, inputs), wanted, "float32")
        eager = token_similarity(*map(torch.from_numpy, inputs.values()), padding_is_zero)
        assert_close(TOKEN_SIMILARITY, {"scores": eager.numpy()}, wanted, "float32")


@pytest.mark.parametrize(
    ("kernel", "inputs", "attributes"),
    [(TOKEN_MERGE, merge_inputs(0), MERGING), (TOKEN_SIMILARITY, similarity_inputs(0), {})],
    ids=["TokenMerge", "TokenSimilarity"],
)
def test_half_precision_goes_in_and_comes_out(kernel: Kernel, inputs: Arrays, attributes: dict[str, Any]) -> None:
    """The arithmetic is in float32 all the same."""
    inputs = in_element(kernel, inputs, "float16")
    given_halves = {
        name: array.astype(np.float16) if kernel.inputs[name] == "element" else array for name, array in inputs.items()
    }
    engine = open_engine(node_model(kernel, "float16", **attributes), "cpu", 1)
    assert_close(kernel, run(engine, kernel, given_halves), expected(kernel, inputs, **attributes), "float16")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_of_standard_operators_alone(name: str) -> None:
    function = FUNCTIONS[name]()
    assert (function.domain, function.name) == (DOMAIN, name)
    assert {node.domain for node in function.node} == {""}
    assert {part.name for part in function.attribute_proto} == KERNELS[name].attributes.keys()
    assert list(function.input) == list(KERNELS[name].inputs)
    assert len(function.output) == len(KERNELS[name].outputs)
    assert not {"Loop", "If", "Scan", "NonZero"} & {node.op_type for node in function.node}


def test_operators_tell_the_exporter_their_shapes() -> None:
    merge = {
        name: torch.from_numpy(array) for name, array in in_element(TOKEN_MERGE, merge_inputs(0), "float32").items()
    }
    similarity = in_element(TOKEN_SIMILARITY, similarity_inputs(0), "float32")
    for operator, arguments in (
        (token_merge, (*merge.values(), 4, 0.34, 3)),
        (token_similarity, tuple(map(torch.from_numpy, similarity.values()))),
    ):
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


def test_a_module_merges_by_the_operator_only_while_it_is_exported() -> None:
    torch.manual_seed(0)
    merges = torch.nn.ModuleList(
        TokenMerge(width=16, max_tokens=8, ratio=0.5, heads=2, merging=merging)  # type: ignore[arg-type]
        for merging in ("masked", "released")
    )
    tokens, mask = torch.randn(3, 8, 16), torch.from_numpy(ragged(np.random.default_rng(0), 3, 8))
    before = merges[0](tokens, mask)
    with merging_as_nodes(merges):
        assert [merge.merge is merge_tokens for merge in merges] == [False, True]
        for one, other in zip(merges[0](tokens, mask), before, strict=True):
            torch.testing.assert_close(one, other)
    assert all(merge.merge is merge_tokens for merge in merges)
