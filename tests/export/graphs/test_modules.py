"""Traced graphs against their modules, and padding that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbi_engines.engine import Engine
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import TracedGraph, named
from hbi_export.graphs.parity import compare
from hbi_export.graphs.sample_inputs import random_token_inputs
from hbi_infer.model.bundle import Bundle
from hbi_training.model import hbi as training_model
from hbi_training.model.token_interaction import Tokens
from tests.builders.exports import Exported

ROUNDING = 1e-4


@pytest.fixture(scope="module")
def text_engine(text_graph: TracedGraph) -> Engine:
    return open_engine(text_graph.content, "cpu")


@pytest.fixture(scope="module")
def clip_engine(clip_graph: TracedGraph) -> Engine:
    return open_engine(clip_graph.content, "cpu")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 5), length=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_text_graph_at_any_batch_and_length(
    text_graph: TracedGraph, text_engine: Engine, batch: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, (batch, length))
    mask = np.arange(length) < rng.integers(2, length + 1, (batch, 1))
    inputs = {"token_ids": ids, "token_mask": mask}
    actual, expected = text_engine.run(inputs), text_graph.eager(inputs)
    for name in text_graph.output_names:
        check = compare("text_encoder", "random", name, actual[name], expected[name])
        allowed = 0 if name.startswith("entity") else 1
        assert check.items_beyond <= allowed, check


@settings(deadline=None, max_examples=20)
@given(length=st.integers(2, 30), extra=st.integers(1, 10), seed=st.integers(0, 1000))
def test_padding_changes_nothing_in_the_text_graph(text_engine: Engine, length: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, (1, length + extra))
    plain = text_engine.run({"token_ids": ids[:, :length], "token_mask": np.ones((1, length), bool)})
    padded = text_engine.run({"token_ids": ids, "token_mask": np.arange(length + extra)[None] < length})
    for level in ("entity", "action", "event"):
        real = int((plain[f"{level}_weights"] > 0).sum())
        for part in ("weights", "tokens"):
            one, two = plain[f"{level}_{part}"][:, :real], padded[f"{level}_{part}"][:, :real]
            np.testing.assert_allclose(one, two, rtol=0, atol=10 * ROUNDING)
        assert not padded[f"{level}_weights"][:, real:].any()


@settings(deadline=None, max_examples=15)
@given(frames=st.integers(1, 6), fill=st.floats(-9, 9), seed=st.integers(0, 1000))
def test_padded_frames_change_nothing_in_the_clip_graph(
    clip_engine: Engine, frames: int, fill: float, seed: int
) -> None:
    clip = np.random.default_rng(seed).normal(size=(1, 6, 32)).astype(np.float32)
    mask = np.arange(6)[None] < frames
    other = np.where(mask[:, :, None], clip, np.float32(fill))
    one = clip_engine.run({"features": clip, "frame_mask": mask})
    two = clip_engine.run({"features": other, "frame_mask": mask})
    for level in ("entity", "action", "event"):
        real = one[f"{level}_weights"] > 0
        np.testing.assert_allclose(one[f"{level}_weights"], two[f"{level}_weights"], rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(
            one[f"{level}_tokens"][real], two[f"{level}_tokens"][real], rtol=0, atol=10 * ROUNDING
        )


@pytest.mark.parametrize("name", ["interaction", "similarity", "reranker", "answerer", "captioner_prefill"])
def test_padded_tokens_change_nothing_in_any_graph_of_tokens(whole: Exported, name: str) -> None:
    engine = open_engine(Bundle.load(whole.folder).graph_bytes(name), "cpu")
    assert isinstance(whole.checkpoint.model, training_model.HBI)
    drawn = random_token_inputs(whole.checkpoint.model.config)
    inputs = {spec.name: drawn[spec.name] for spec in engine.inputs}
    rng, padded, noisy = np.random.default_rng(3), 0, dict(inputs)
    for tokens_name in [part for part in inputs if part.endswith("_tokens")]:
        real = inputs[tokens_name.replace("_tokens", "_weights")][..., None] > 0
        noise = rng.normal(scale=5.0, size=inputs[tokens_name].shape).astype(np.float32)
        noisy[tokens_name] = np.where(real, inputs[tokens_name], noise)
        padded += int((~real).sum())
    assert padded > 0
    plain, changed = engine.run(inputs), engine.run(noisy)
    for output, expected in plain.items():
        # What the decoder may not look at is there, behind a mask.
        seen = plain["memory_mask"][:, None, None, :, None] if output in ("memory_keys", "memory_values") else True
        largest, difference = np.abs(expected).max(), np.where(seen, changed[output] - 1.0 * expected, 0.0)
        np.testing.assert_allclose(difference, 0.0, rtol=0, atol=1e-5 * largest, err_msg=output)


def test_a_weight_is_zero_at_padding_and_nowhere_else() -> None:
    mask = torch.tensor([[True, True, False]])
    underflowed = Tokens(torch.ones(1, 3, 2), torch.tensor([[1.0, 0.0, 0.0]]), mask)
    weights = named({"entity": underflowed})["entity_weights"]
    assert ((weights > 0) == mask).all()
    assert weights[0, 1] < 1e-37


def test_no_path_of_this_machine_is_in_a_graph(text_graph: TracedGraph, frame_graph: TracedGraph) -> None:
    for graph in (text_graph, frame_graph):
        assert b"site-packages" not in graph.content
        assert b".py" not in graph.content
