"""Checks a graph against the module it was traced from: same inputs, largest difference, smallest cosine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import TracedGraph
from hbi_infer.errors import ExportError

TOLERANCE = 1e-3
"""Largest difference, as a part of an output's largest value: float32 sums are in another order, in all layers."""
MAX_SHARE_REGROUPED = 0.05
"""Share of items whose merged tokens may differ: rounding chooses between two centres that are as good as equally far.
A fault in a graph changes nearly all items."""
ITEMS_AT_A_TIME = 4
"""Batch size of checks; with more, the activations of a large vision tower need several gigabytes."""


@dataclass(frozen=True)
class OutputCheck:
    """Comparison of one output of a graph with eager PyTorch on one set of inputs.

    Attributes:
        graph: Name of the graph.
        inputs: Name of the set of inputs.
        output: Name of the output.
        largest_difference: Largest difference, divided by the largest value of the eager output.
        cosine: Smallest cosine of any item; 1 where nothing differs.
        median_cosine: Median cosine, which the few items whose tokens are merged otherwise do not change.
        items: Number of items, B.
        items_beyond: Number of items with a difference beyond `TOLERANCE`.
    """

    graph: str
    inputs: str
    output: str
    largest_difference: float
    cosine: float
    median_cosine: float
    items: int
    items_beyond: int


def check_graph(
    name: str, graph: TracedGraph, input_sets: Mapping[str, Arrays], first_level: str = ""
) -> list[OutputCheck]:
    """Compares a graph in ONNX Runtime with its module in PyTorch.

    Args:
        name: Name of the graph.
        graph: The graph and its module.
        input_sets: Name of a set -> inputs (B, ...).
        first_level: Level before any merging, where no item may differ; "" for a graph that merges nothing.

    Raises:
        ExportError: The graph differs from its module beyond the tolerance.
    """
    engine = open_engine(graph.content, "cpu")
    checks = []
    for inputs_name, inputs in input_sets.items():
        actual, expected = in_parts(engine.run, inputs), in_parts(graph.eager, inputs)
        for output in graph.output_names:
            check = compare(name, inputs_name, output, actual[output], expected[output])
            allowed = 0 if output.startswith(first_level) else max(1, int(MAX_SHARE_REGROUPED * check.items))
            if check.items_beyond > allowed:
                raise ExportError(
                    f"{name} computes something else than the model: {output} differs by "
                    f"{check.largest_difference:.1e} of the largest value on {inputs_name} inputs, in "
                    f"{check.items_beyond} of {check.items} items; at most {TOLERANCE:.0e} is allowed, and the bundle "
                    "was not written"
                )
            checks.append(check)
    return checks


def in_parts(run: Callable[[Arrays], Arrays], inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Runs inputs (B, ...) a few items at a time, and joins the outputs (B, ...)."""
    num_items = len(next(iter(inputs.values())))
    parts = [
        run({name: array[start : start + ITEMS_AT_A_TIME] for name, array in inputs.items()})
        for start in range(0, num_items, ITEMS_AT_A_TIME)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(
    graph: str, inputs: str, output: str, actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]
) -> OutputCheck:
    """Compares an output (B, ...) with the expected one, item by item."""
    got, want = (np.asarray(part, np.float64).reshape(len(actual), -1) for part in (actual, expected))
    difference = np.abs(got - want).max(axis=1) / max(np.abs(want).max(), 1e-12)
    # Not a number is beyond every tolerance.
    beyond = int(np.sum(~(difference <= TOLERANCE)))
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = np.where((got == want).all(axis=1), 1.0, (got * want).sum(axis=1) / np.maximum(lengths, 1e-12))
    return OutputCheck(
        graph=graph,
        inputs=inputs,
        output=output,
        largest_difference=float(difference.max()),
        cosine=float(cosine.min()),
        median_cosine=float(np.median(cosine)),
        items=len(got),
        items_beyond=beyond,
    )
