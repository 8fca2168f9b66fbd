"""Inputs that graphs are checked with."""

from __future__ import annotations

from hbi_export.graphs.sample_inputs import random_video_inputs
from hbi_training.weights.checkpoint import Checkpoint
from tests.builders.exports import Exported


def test_every_graph_of_tokens_is_checked_on_real_ones_too(whole: Exported) -> None:
    checked = {(check.graph, check.inputs) for check in whole.checks}
    for name in ("interaction", "similarity", "reranker", "answerer", "captioner_prefill"):
        assert {(name, "random"), (name, "real")} <= checked


def test_random_inputs_have_every_length(checkpoint: Checkpoint) -> None:
    video = random_video_inputs(checkpoint.model.config.sampling)
    assert video["frame_mask"].sum(1).tolist() == [1, 2, 4, 6]
