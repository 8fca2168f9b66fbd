"""The one table of graphs against the embedded bundle and the tasks."""

from __future__ import annotations

import pytest

from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.graph_names import (
    GRAPHS,
    PAIR_GRAPHS,
    TASKS,
    clip_graph,
    exported_graphs,
    graphs_of_task,
    missing_graphs,
)

LEVELS = ("entity", "action", "event")


@pytest.mark.parametrize("name", Bundle.load(default_bundle_path()).manifest.graphs)
def test_the_embedded_graphs_have_the_names_of_the_table(name: str) -> None:
    spec = Bundle.load(default_bundle_path()).manifest.graphs[name]
    assert {tensor.name for tensor in spec.inputs} == set(GRAPHS[name].input_names(LEVELS))
    slots = {f"{level}_slots" for level in LEVELS}
    assert {tensor.name for tensor in spec.outputs} - slots == set(GRAPHS[name].output_names(LEVELS))


def test_names_of_levels_are_in_the_order_of_sides_levels_and_parts() -> None:
    assert GRAPHS["similarity"].input_names(["entity", "event"]) == (
        "text_entity_tokens",
        "text_entity_weights",
        "text_event_tokens",
        "text_event_weights",
        "video_entity_tokens",
        "video_entity_weights",
        "video_event_tokens",
        "video_event_weights",
    )
    assert GRAPHS["interaction"].output_names(["entity", "event"]) == ("entity_interaction", "event_interaction")
    assert GRAPHS["text_encoder"].input_names(["entity", "event"]) == ("token_ids", "token_mask")


def test_what_each_task_needs() -> None:
    assert {task: graphs_of_task(task) for task in TASKS} == {
        "retrieve": ("frame_encoder", "clip_encoder", "text_encoder"),
        "rerank": ("frame_encoder", "clip_encoder", "text_encoder", "reranker"),
        "qa": ("frame_encoder", "clip_encoder", "text_encoder", "answerer"),
        "caption": ("frame_encoder", "clip_encoder", "captioner_prefill", "captioner_step"),
    }
    assert set(exported_graphs()) == GRAPHS.keys() - {"video_encoder"}
    assert PAIR_GRAPHS == ("interaction", "similarity", "reranker", "answerer")


def test_an_older_graph_stands_for_those_that_replaced_it() -> None:
    assert missing_graphs("retrieve", {"video_encoder", "text_encoder"}) == ()
    assert missing_graphs("retrieve", {"video_encoder"}) == ("text_encoder",)
    assert missing_graphs("retrieve", {"frame_encoder", "text_encoder"}) == ("clip_encoder",)
    assert clip_graph({"video_encoder", "text_encoder"}) == "video_encoder"
    assert clip_graph({"frame_encoder", "clip_encoder"}) == "clip_encoder"
