"""Graphs that a bundle may hold: the task of each, and the names of its inputs and outputs.

No other list of them exists: manifest, model, export, comparison and PyTorch's engine read this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["text", "video"]
TASKS = ("retrieve", "rerank", "qa", "caption")
"""Tasks that a bundle declares. Interactions are no such task: without their graph NumPy computes them."""

LEVEL_TOKENS = ("{level}_tokens", "{level}_weights")
MEMORY = ("memory_keys", "memory_values", "memory_mask")
PRESENT = ("present_keys", "present_values")


@dataclass(frozen=True, kw_only=True)
class GraphNames:
    """Task, inputs and outputs of a graph. "{level}" in a name stands for each level in turn.

    Attributes:
        task: Task of the model that the graph is for: one of `TASKS`, or "interaction".
        inputs: Names of its inputs, besides the tokens of `sides`.
        sides: Encoders whose tokens and weights are its inputs.
        outputs: Names of its outputs; an encoder that merges also has "{level}_slots".
        replaced_by: Graphs that do its work in newer bundles; such a graph is still run, and no longer exported.
        crossed: Whether A texts meet each of B videos; otherwise B texts go with B videos, pair by pair.
    """

    task: str
    inputs: tuple[str, ...] = ()
    sides: tuple[Side, ...] = ()
    outputs: tuple[str, ...]
    replaced_by: tuple[str, ...] = ()
    crossed: bool = False

    def input_names(self, levels: Iterable[str]) -> tuple[str, ...]:
        """Returns all input names, in the order of the module that the graph is traced from."""
        tokens = _at(LEVEL_TOKENS, levels)
        return (*self.inputs, *(f"{side}_{name}" for side in self.sides for name in tokens))

    def output_names(self, levels: Iterable[str]) -> tuple[str, ...]:
        """Returns the outputs that every graph of this name has."""
        return _at(self.outputs, levels)


def _at(names: Sequence[str], levels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.format(level=level) for level in levels for name in names))


GRAPHS = {
    "video_encoder": GraphNames(
        task="retrieve",
        inputs=("frames", "frame_mask"),
        outputs=LEVEL_TOKENS,
        replaced_by=("frame_encoder", "clip_encoder"),
    ),
    "frame_encoder": GraphNames(task="retrieve", inputs=("frames",), outputs=("features",)),
    "clip_encoder": GraphNames(task="retrieve", inputs=("features", "frame_mask"), outputs=LEVEL_TOKENS),
    "text_encoder": GraphNames(task="retrieve", inputs=("token_ids", "token_mask"), outputs=LEVEL_TOKENS),
    "interaction": GraphNames(task="interaction", sides=("text", "video"), outputs=("{level}_interaction",)),
    "similarity": GraphNames(task="interaction", sides=("text", "video"), outputs=("scores",), crossed=True),
    "reranker": GraphNames(task="rerank", sides=("text", "video"), outputs=("score",)),
    "answerer": GraphNames(task="qa", sides=("text", "video"), outputs=("logits",)),
    "captioner_prefill": GraphNames(task="caption", sides=("video",), outputs=("logits", *MEMORY, *PRESENT)),
    "captioner_step": GraphNames(
        task="caption", inputs=("token_ids", *MEMORY, "past_keys", "past_values"), outputs=("logits", *PRESENT)
    ),
}
"""Name of a graph -> its task, inputs and outputs."""

PAIR_GRAPHS = tuple(name for name, graph in GRAPHS.items() if graph.sides == ("text", "video"))
"""Graphs on the tokens of texts and videos."""


TOKENS_FROM: dict[Side, tuple[str, ...]] = {
    "text": ("text_encoder",),
    "video": ("frame_encoder", "clip_encoder"),
}
"""Side -> the graphs that make its tokens, the last of which gives them."""


def exported_graphs() -> tuple[str, ...]:
    """Returns the graphs that are exported today: all but those of older bundles."""
    return tuple(name for name, graph in GRAPHS.items() if not graph.replaced_by)


def graphs_of_task(task: str) -> tuple[str, ...]:
    """Returns the graphs that a task needs: its own, and the encoders whose tokens those take."""
    own = [name for name in exported_graphs() if GRAPHS[name].task == task]
    encoders = {encoder for name in own for side in GRAPHS[name].sides for encoder in TOKENS_FROM[side]}
    return tuple(name for name in exported_graphs() if name in own or name in encoders)


def clip_graph(present: Collection[str]) -> str:
    """Returns the name of that of the graphs which gives the tokens of clips."""
    newest = TOKENS_FROM["video"][-1]
    return newest if newest in present else "video_encoder"


def missing_graphs(task: str, present: Collection[str]) -> tuple[str, ...]:
    """Returns the graphs that a task needs and that are not present, nor an older one that does their work."""
    done = {name for older in present if older in GRAPHS for name in GRAPHS[older].replaced_by}
    return tuple(name for name in graphs_of_task(task) if name not in present and name not in done)
