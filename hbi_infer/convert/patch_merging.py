"""Nodes that merge similar patches between the layers of a vision transformer, so that later layers have fewer.

Bolya et al. 2023, "Token merging: your ViT but faster". `hbi_training.model.vision_transformer` does the same in
PyTorch, and says how.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from hbi_infer.convert.onnx_builder import Attention, GraphBuilder, Linear


@dataclass(frozen=True)
class Patches:
    """Names of the class token and the patches of N pictures, the class token first.

    Attributes:
        hidden: Name of the values (N, P, W).
        count: P.
        sizes: Name of the numbers of patches that each was merged from, (N, P, 1); "" for one each.
    """

    hidden: str
    count: int
    sizes: str = ""


def size_term(graph: GraphBuilder, patches: Patches, *, name: str) -> str:
    """Adds the term (N, 1, 1, P) on scores that counts a merged patch as often as it was there; "" if none."""
    if not patches.sizes:
        return ""
    row = graph.node("Transpose", patches.sizes, name=f"{name}.row", perm=[0, 2, 1])
    logarithm = graph.node("Log", row, name=f"{name}.log")
    return graph.node("Unsqueeze", logarithm, graph.shared("heads_axis", [1]), name=name)


def merge_patches(
    graph: GraphBuilder, patches: Patches, normed: str, attention: Attention, *, merged: int, width: int, name: str
) -> Patches:
    """Adds the merging of those patches whose keys are most like those of another one.

    Args:
        graph: The graph.
        patches: The patches, behind the layer's attention.
        normed: Name of what the attention read, (N, P, W).
        attention: The attention, whose keys say what is alike.
        merged: Number of patches by which there are fewer; at most half of them.
        width: W.
        name: Begin of the names of the nodes.
    """
    merged = min(merged, (patches.count - 1) // 2)
    if not merged:
        return patches
    rows, first = graph.shared("rows_axis", [1]), graph.shared("first_place", [0])
    far, step = graph.shared("far", [2**31]), graph.shared("every_second", [2])

    def every_second(of: str, start: int, part: str) -> str:
        begin = graph.shared(f"from_{start}", [start])
        return graph.node("Slice", of, begin, far, rows, step, name=f"{name}.{part}")

    keys = graph.unit(graph.linear(normed, _mean_keys(attention), name=f"{name}.keys"), name=f"{name}.directions")
    looking, found = every_second(keys, 1, "looking"), every_second(keys, 2, "found")
    turned = graph.node("Transpose", found, name=f"{name}.found_turned", perm=[0, 2, 1])
    cosines = graph.node("MatMul", looking, turned, name=f"{name}.cosines")
    one = graph.shared("one_place", [1])
    nearness, nearest = graph.nodes("TopK", cosines, one, names=[f"{name}.nearness", f"{name}.nearest"], axis=2)
    number = patches.count // 2
    flat = graph.node("Squeeze", nearness, graph.shared("column_axis", [2]), name=f"{name}.nearness_row")
    every = graph.shared(f"all_{number}", [number])
    _, order = graph.nodes("TopK", flat, every, names=[f"{name}.ordered", f"{name}.order"], axis=1)
    index = graph.node("Unsqueeze", order, graph.shared("column_axis", [2]), name=f"{name}.index")
    border = graph.shared(f"from_{merged}", [merged])
    gone = graph.node("Slice", index, first, border, rows, name=f"{name}.gone")
    kept = graph.node("Slice", index, border, far, rows, name=f"{name}.kept")

    # What is summed by size becomes a mean by division.
    sizes = patches.sizes or _ones(graph, patches.hidden, name=f"{name}.ones")
    weighted = graph.node("Mul", patches.hidden, sizes, name=f"{name}.weighted")
    summed = graph.node("Concat", weighted, sizes, name=f"{name}.summed", axis=2)
    own = graph.node("Slice", summed, first, graph.shared("one_place", [1]), rows, name=f"{name}.class")
    looking, found = every_second(summed, 1, "looking_summed"), every_second(summed, 2, "found_summed")
    goes_to = graph.node("GatherND", nearest, gone, name=f"{name}.goes_to", batch_dims=1)
    places = graph.shared(f"places_{patches.count}", np.arange((patches.count - 1) // 2, dtype=np.int64))
    is_it = graph.node("Equal", goes_to, places, name=f"{name}.is_it")
    chosen = graph.node("Cast", is_it, name=f"{name}.chosen", to=TensorProto.FLOAT)
    spread = graph.node("Transpose", chosen, name=f"{name}.spread", perm=[0, 2, 1])
    leaving = graph.node("GatherND", looking, gone, name=f"{name}.leaving", batch_dims=1)
    staying = graph.node("GatherND", looking, kept, name=f"{name}.staying", batch_dims=1)
    added = graph.node("MatMul", spread, leaving, name=f"{name}.added")
    grown = graph.node("Add", found, added, name=f"{name}.grown")
    fewer = graph.node("Concat", own, staying, grown, name=f"{name}.fewer", axis=1)
    split = graph.shared(f"width_and_size_{width}", [width, 1])
    values, new_sizes = graph.nodes("Split", fewer, split, names=[f"{name}.values", f"{name}.sizes"], axis=2)
    mean = graph.node("Div", values, new_sizes, name=f"{name}.mean")
    return Patches(mean, patches.count - merged, new_sizes)


def _ones(graph: GraphBuilder, hidden: str, *, name: str) -> str:
    """Adds a size of 1 for each of the patches (N, P, W): (N, P, 1)."""
    column = graph.node("ReduceMax", hidden, graph.shared("last_axis", [-1]), name=f"{name}.column", keepdims=1)
    nothing = graph.node("Mul", column, graph.shared("zero_size", 0.0), name=f"{name}.nothing")
    return graph.node("Add", nothing, graph.shared("one_size", 1.0), name=name)


def _mean_keys(attention: Attention) -> Linear:
    """Returns the layer (W, W / heads) that gives the mean of all heads' keys."""
    weight, bias = attention.key.weight, attention.key.bias
    mean = weight.reshape(len(weight), attention.heads, -1).mean(1)
    return Linear(mean, None if bias is None else bias.reshape(attention.heads, -1).mean(0))
