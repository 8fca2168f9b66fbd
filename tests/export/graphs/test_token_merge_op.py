"""The merging as a node: its function against NumPy and PyTorch, in two runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_engines.kernels.definitions import TOKEN_MERGE
from hbi_engines.registry import open_engine
from hbi_export.graphs.token_merge_op import merging_as_nodes
from hbi_training.model.token_merge import TokenMerge, merge_tokens
from tests.builders.kernel_games import (
    assert_close,
    expected,
    in_element,
    merge_inputs,
    ragged,
)
from tests.builders.nodes import DEVICES, MERGING, node_model, run

MERGE_ENGINES = {device: open_engine(node_model(TOKEN_MERGE, **MERGING), device, 1) for device in DEVICES}


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
