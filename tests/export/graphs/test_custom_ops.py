"""All nodes of our own: their types, functions and operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hbi_engines.kernels.definitions import KERNELS, TOKEN_MERGE, TOKEN_SIMILARITY, Kernel
from hbi_engines.registry import open_engine
from hbi_export.graphs.custom_ops import FUNCTIONS
from hbi_export.graphs.onnx_functions import DOMAIN
from hbi_export.graphs.similarity_op import token_similarity
from hbi_export.graphs.token_merge_op import token_merge
from tests.builders.kernel_games import (
    Arrays,
    assert_close,
    expected,
    in_element,
    merge_inputs,
    similarity_inputs,
)
from tests.builders.nodes import MERGING, node_model, run


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
