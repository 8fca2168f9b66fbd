"""The similarity as a node: its function against NumPy and PyTorch, in two runtimes."""

from __future__ import annotations

import pytest
import torch

from hbi_engines.kernels.definitions import TOKEN_SIMILARITY
from hbi_engines.registry import open_engine
from hbi_export.graphs.similarity_op import token_similarity
from tests.builders.kernel_games import (
    assert_close,
    expected,
    in_element,
    similarity_inputs,
)
from tests.builders.nodes import DEVICES, node_model, run


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
