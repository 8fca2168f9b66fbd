"""Checks a graph against the module it was traced from: the same inputs, the largest difference, the cosine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import Arrays, TracedGraph
from hbi_infer.errors import ExportError

TOLERANCE = 1e-3
"""Of the largest value of an output: float32 sums in another order, through all layers."""
MAX_SHARE_REGROUPED = 0.05
"""Of items whose merged tokens may differ: where two tokens are as good as equally far from two centres, rounding
chooses between them. A fault in a graph changes nearly all items."""
ITEMS_AT_A_TIME = 4
"""More would need several gigabytes for the activations of a large vision tower."""


@dataclass(frozen=True)
class OutputCheck:
    """How one output of a graph compares with eager on one set of inputs.

    Attributes:
        graph: Its name.
        inputs: Which inputs.
        output: Its name.
        largest_difference: Divided by the largest value of the eager output.
        cosine: The smallest of any item; 1 where nothing differs.
        median_cosine: The one in the middle, which the few items whose tokens are merged otherwise do not change.
        items: B.
        items_beyond: Items with a difference beyond `TOLERANCE`.
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
    """Runs a graph in ONNX Runtime and its module in PyTorch.

    Args:
        name: Of the graph.
        graph: What was traced.
        input_sets: What to run it on.
        first_level: The level that no merging stands before: there, no item may differ. "" if nothing is merged at all.

    Raises:
        ExportError: A graph differs from its module beyond the tolerance.
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


def in_parts(run: Callable[[Arrays], Arrays], inputs: Arrays) -> Arrays:
    """What `run` gives for B items, a few at a time."""
    num_items = len(next(iter(inputs.values())))
    parts = [
        run({name: array[start : start + ITEMS_AT_A_TIME] for name, array in inputs.items()})
        for start in range(0, num_items, ITEMS_AT_A_TIME)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(
    graph: str, inputs: str, output: str, actual: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]
) -> OutputCheck:
    """Compares two outputs (B, ...) item by item."""
    got, want = (np.asarray(part, np.float64).reshape(len(actual), -1) for part in (actual, expected))
    difference = np.abs(got - want).max(axis=1) / max(np.abs(want).max(), 1e-12)
    # An item that is not a number is beyond every tolerance.
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
