"""The two towers of CLIP-like models, as graphs that are made to be fast.

Bytes go in; normalisation is folded into the patch embedding, and the scale and shift of a norm into the layer behind
it. One product gives queries, keys and values. The last layer is computed for the pooled token alone, where there is
one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from hbi_engines.engine import TensorSpec
from hbi_infer.convert.onnx_builder import (
    Activation,
    Attention,
    BuiltGraph,
    GraphBuilder,
    Linear,
    Norm,
    Stored,
    pixels_to_patches,
)
from hbi_infer.convert.patch_merging import Patches, merge_patches, size_term
from hbi_infer.errors import BundleError

Array = npt.NDArray[Any]

HIDDEN = float(np.finfo(np.float32).min)
"""Term that hides a score of an attention."""
LEVELS = {"frame": 0.0, "video": 1.0}
"""Level -> rate. Frames do not count in the score, but show where a match is; the video is the mean of unit frames."""


@dataclass(frozen=True)
class Layer:
    """A layer of a transformer with its norms before its parts.

    Attributes:
        attention_norm: Norm before the attention.
        attention: The attention.
        norm: Norm before the feed-forward part.
        widen: First layer of the feed-forward part (D, E).
        activation: Activation between the two.
        narrow: Second layer (E, D).
    """

    attention_norm: Norm
    attention: Attention
    norm: Norm
    widen: Linear
    activation: Activation
    narrow: Linear

    @property
    def folded(self) -> Layer:
        """The same layer, with the scale and shift of its norms in the layers behind them."""
        return replace(
            self,
            attention_norm=self.attention_norm.bare,
            attention=self.attention.behind(self.attention_norm),
            norm=self.norm.bare,
            widen=self.norm.folded_into(self.widen),
        )


@dataclass(frozen=True)
class PoolingHead:
    """SigLIP's pooling: a learnt vector asks all patches, and a feed-forward part follows.

    Attributes:
        probe: (D,) the vector.
        attention: Attention of the probe on all patches.
        norm: Norm before the feed-forward part.
        widen: First layer of the feed-forward part (D, E).
        activation: Activation between the two.
        narrow: Second layer (E, D).
    """

    probe: Array
    attention: Attention
    norm: Norm
    widen: Linear
    activation: Activation
    narrow: Linear


@dataclass(frozen=True)
class VisionTower:
    """Encoder of pictures.

    Attributes:
        size: H = W, in pixels.
        patch: Height and width of a patch.
        embedding: Layer (3 * patch * patch, D) on the bytes of a patch; see `patch_layer`.
        class_token: (D,) a token before the patches, which is pooled; None where `head` pools.
        positions: (P, D), those of the class token first.
        norm_before: Norm before the first layer, or None.
        layers: The layers.
        norm: Norm behind the last layer.
        head: Pooling of all patches, or None where the class token is pooled.
        projection: Layer (D, E) on the pooled token, or None.
    """

    size: int
    patch: int
    embedding: Linear
    class_token: Array | None
    positions: Array
    norm_before: Norm | None
    layers: tuple[Layer, ...]
    norm: Norm
    head: PoolingHead | None
    projection: Linear | None

    @property
    def width(self) -> int:
        """Width of the pooled token."""
        return int((self.positions if self.projection is None else self.projection.weight).shape[1])


@dataclass(frozen=True)
class TextTower:
    """Encoder of texts.

    Attributes:
        embedding: (S, D) of S tokens.
        positions: (T, D), the most tokens of a text.
        layers: The layers.
        norm: Norm behind the last layer.
        projection: Layer (D, E) on the pooled token, or None.
        pooled: Token that is pooled: the first of this id; the first with the highest id ("highest"); or the last of a
            text of fixed length ("last"), in which each token sees all others, padding too.
    """

    embedding: Array
    positions: Array
    layers: tuple[Layer, ...]
    norm: Norm
    projection: Linear | None
    pooled: int | Literal["highest", "last"]

    @property
    def width(self) -> int:
        """Width of the pooled token."""
        return int((self.embedding if self.projection is None else self.projection.weight).shape[1])


def frame_graph(tower: VisionTower, *, stored: Stored = "float32", merged: int = 0) -> BuiltGraph:
    """Builds the graph `frame_encoder`: frames (N, H, W, 3) uint8 to their features (N, D).

    Args:
        tower: The encoder of pictures.
        stored: Format in which weights are stored.
        merged: Number of patches that each layer merges away (`hbi_infer.convert.patch_merging`).

    Raises:
        BundleError: Patches are to be merged, and the model pools all of them.
    """
    if merged and tower.head is not None:
        raise BundleError("this model pools all patches, and merges none: leave out --merge-tokens")
    graph = GraphBuilder("frame_encoder", stored=stored)
    frames = graph.input(TensorSpec("frames", "uint8", ("num_frames", tower.size, tower.size, 3)))
    row = graph.constant("row", [-1, tower.width])
    features = graph.node("Reshape", _picture(graph, tower, frames, merged), row, name="features_of_frames")
    graph.output(features, TensorSpec("features", "float32", ("num_frames", tower.width)))
    return graph.built()


def clip_graph(width: int, max_frames: int) -> BuiltGraph:
    """Builds the graph `clip_encoder`: features (B, F, D) of frames to the tokens of both levels.

    Args:
        width: D.
        max_frames: F.
    """
    graph = GraphBuilder("clip_encoder")
    features, mask = clip_inputs(graph, width, max_frames)
    weights = frame_shares(graph, mask)
    row = graph.node("Unsqueeze", weights, graph.constant("rows", [1]), name="share_row")
    mean = graph.node("MatMul", row, graph.unit(features, name="unit"), name="mean")
    _output(graph, "frame", (features, max_frames, width), weights)
    _output(graph, "video", (mean, 1, width), _ones(graph, mask))
    return graph.built()


def clip_inputs(graph: GraphBuilder, width: int, max_frames: int) -> tuple[str, str]:
    """Adds the inputs of a graph `clip_encoder`: features (B, F, D) and the mask (B, F) of real frames."""
    features = graph.input(TensorSpec("features", "float32", ("batch", max_frames, width)))
    return features, graph.input(TensorSpec("frame_mask", "bool", ("batch", max_frames)))


def frame_shares(graph: GraphBuilder, mask: str) -> str:
    """Adds weights (B, F) that are equal for all real frames of a clip and 0 for missing ones."""
    real = graph.node("Cast", mask, name="real", to=TensorProto.FLOAT)
    count = graph.node("ReduceSum", real, graph.shared("last_axis", [-1]), name="count", keepdims=1)
    divisor = graph.node("Max", count, graph.constant("one", 1.0), name="divisor")
    return graph.node("Div", real, divisor, name="share")


def text_graph(tower: TextTower, *, stored: Stored = "float32") -> BuiltGraph:
    """Builds the graph `text_encoder`: token ids (B, T) to the one token of each text, at both levels."""
    graph = GraphBuilder("text_encoder", stored=stored)
    length: int | str = len(tower.positions) if tower.pooled == "last" else "text_length"
    ids = graph.input(TensorSpec("token_ids", "int64", ("batch", length)))
    mask = graph.input(TensorSpec("token_mask", "bool", ("batch", length)))
    words = graph.node("Gather", graph.constant("words", tower.embedding, channels=0), ids, name="embedded", axis=0)
    if tower.pooled == "last":
        pooled = _seeing_all(graph, tower, words)
    else:
        pooled = _seeing_before(graph, tower, words, ids, mask)
    token = _finished(graph, tower.norm, tower.projection, pooled, tower.embedding.shape[1], name="token")
    ones = _ones(graph, mask)
    for level in LEVELS:
        _output(graph, level, (token, 1, tower.width), ones)
    return graph.built()


def _seeing_all(graph: GraphBuilder, tower: TextTower, words: str) -> str:
    """Adds the layers of a text of fixed length; gives the last token (B, 1, D)."""
    x = graph.node("Add", words, graph.constant("positions", tower.positions), name="placed")
    last = graph.constant("last_place", [len(tower.positions) - 1])
    for number, layer in enumerate(tower.layers[:-1]):
        x = _layer(graph, layer, x, name=f"layer{number}")
    return _last_layer(graph, tower.layers[-1], x, lambda of, name: graph.node("Gather", of, last, name=name, axis=1))


def _seeing_before(graph: GraphBuilder, tower: TextTower, words: str, ids: str, mask: str) -> str:
    """Adds layers in which a token sees those before it; gives the pooled token (B, 1, D)."""
    count = len(tower.positions)
    length = graph.node("Shape", ids, name="length", start=1, end=2)
    zero, axis = graph.constant("zero", [0]), graph.constant("rows", [0])
    positions = graph.constant("positions", tower.positions)
    x = graph.node("Add", words, graph.node("Slice", positions, zero, length, axis, name="position"), name="placed")
    causal = graph.constant("causal", np.triu(np.full((count, count), HIDDEN, np.float32), 1))
    start, end = (graph.node("Concat", part, part, name=f"{part}_twice", axis=0) for part in (zero, length))
    hidden = graph.node("Slice", causal, start, end, graph.constant("both", [0, 1]), name="hidden")
    for number, layer in enumerate(tower.layers[:-1]):
        x = _layer(graph, layer, x, name=f"layer{number}", mask=hidden)
    place = _pooled_place(graph, tower.pooled, ids, mask)
    index = graph.node("Unsqueeze", place, graph.constant("column", [1]), name="pooled_index")

    def pick(of: str, name: str) -> str:
        row = graph.node("GatherND", of, index, name=f"{name}.row", batch_dims=1)
        return graph.node("Unsqueeze", row, graph.shared("second", [1]), name=name)

    row = graph.node("Gather", hidden, place, name="hidden_row", axis=0)
    before = graph.node("Unsqueeze", row, graph.constant("heads_axes", [1, 2]), name="hidden_of_pooled")
    return _last_layer(graph, tower.layers[-1], x, pick, mask=before)


def _pooled_place(graph: GraphBuilder, pooled: int | str, ids: str, mask: str) -> str:
    """Adds the search of the pooled token of each text; gives places (B,)."""
    if pooled == "highest":
        score = graph.node("Where", mask, ids, graph.constant("none", -1), name="ids_of_text")
    else:
        found = graph.node("Equal", ids, graph.constant("end", int(pooled)), name="is_end")
        inside = graph.node("And", found, mask, name="is_end_of_text")
        score = graph.node("Cast", inside, name="end_score", to=TensorProto.INT64)
    return graph.node("ArgMax", score, name="pooled_place", axis=1, keepdims=0)


def _picture(graph: GraphBuilder, tower: VisionTower, frames: str, merged: int) -> str:
    """Adds the encoding of pictures; gives (N, 1, E)."""
    lead = 0 if tower.class_token is None else 1
    pixels = pixels_to_patches(graph, frames, size=tower.size, patch=tower.patch, name="patches", lead=lead)
    product = graph.node(
        "MatMul", pixels, graph.constant("embedding", tower.embedding.weight, channels=1), name="embedded"
    )
    # The bias of the embedding and the class token are added with the positions.
    positions = tower.positions.copy()
    if tower.embedding.bias is not None:
        positions[lead:] += tower.embedding.bias
    if tower.class_token is not None:
        positions[0] += tower.class_token
    x = graph.node("Add", product, graph.constant("positions", positions), name="placed")
    width = positions.shape[1]
    if tower.norm_before is not None:
        x = graph.norm(x, tower.norm_before, width, name="norm_before")
    if tower.head is not None:
        for number, layer in enumerate(tower.layers):
            x = _layer(graph, layer, x, name=f"layer{number}")
        pooled = _pooling_head(graph, tower.head, tower.norm, x)
        return pooled if tower.projection is None else graph.linear(pooled, tower.projection, name="feature")
    patches = Patches(x, len(positions))
    for number, layer in enumerate(tower.layers[:-1]):
        patches = _merging_layer(graph, layer, patches, merged, name=f"layer{number}")
    first = graph.constant("first", [0])
    x = _last_layer(
        graph,
        tower.layers[-1],
        patches.hidden,
        lambda of, name: graph.node("Gather", of, first, name=name, axis=1),
        mask=size_term(graph, patches, name="last.sizes"),
    )
    return _finished(graph, tower.norm, tower.projection, x, width, name="feature")


def _finished(graph: GraphBuilder, norm: Norm, projection: Linear | None, x: str, width: int, *, name: str) -> str:
    """Adds the last norm and the projection of a pooled token (N, 1, D)."""
    if projection is None:
        return graph.norm(x, norm, width, name=name)
    bare = graph.norm(x, norm.bare, width, name=f"{name}.norm")
    return graph.linear(bare, norm.folded_into(projection), name=name)


def _layer(graph: GraphBuilder, layer: Layer, x: str, *, name: str, mask: str = "") -> str:
    folded, width = layer.folded, layer.narrow.weight.shape[1]
    normed = graph.norm(x, folded.attention_norm, width, name=f"{name}.attention_norm")
    mixed = graph.attention(normed, folded.attention, name=f"{name}.attention", mask=mask)
    x = graph.node("Add", x, mixed, name=f"{name}.attended")
    return _feed_forward(graph, folded, x, name=name)


def _merging_layer(graph: GraphBuilder, layer: Layer, patches: Patches, merged: int, *, name: str) -> Patches:
    """Adds a layer in whose middle similar patches are merged, unless none are to be."""
    if not merged:
        return replace(patches, hidden=_layer(graph, layer, patches.hidden, name=name))
    folded, width = layer.folded, layer.narrow.weight.shape[1]
    normed = graph.norm(patches.hidden, folded.attention_norm, width, name=f"{name}.attention_norm")
    sizes = size_term(graph, patches, name=f"{name}.sizes_term")
    mixed = graph.attention(normed, folded.attention, name=f"{name}.attention", mask=sizes)
    patches = replace(patches, hidden=graph.node("Add", patches.hidden, mixed, name=f"{name}.attended"))
    patches = merge_patches(
        graph, patches, normed, folded.attention, merged=merged, width=width, name=f"{name}.merging"
    )
    return replace(patches, hidden=_feed_forward(graph, folded, patches.hidden, name=name))


def _last_layer(graph: GraphBuilder, layer: Layer, x: str, pick: Any, *, mask: str = "") -> str:
    """Adds a layer that is computed for one token alone; gives (N, 1, D).

    Args:
        graph: The graph.
        layer: The layer.
        x: All tokens (N, T, D).
        pick: Function of the names of (N, T, D) and of its result, which adds the choice of a token.
        mask: Term that is added to the scores of that token.
    """
    folded, width = layer.folded, layer.narrow.weight.shape[1]
    normed = graph.norm(x, folded.attention_norm, width, name="last.attention_norm")
    asked = pick(normed, "last.asked")
    mixed = graph.attention(normed, folded.attention, name="last.attention", mask=mask, queries=asked)
    x = graph.node("Add", pick(x, "last.kept"), mixed, name="last.attended")
    return _feed_forward(graph, folded, x, name="last")


def _feed_forward(graph: GraphBuilder, folded: Layer | PoolingHead, x: str, *, name: str) -> str:
    normed = graph.norm(x, folded.norm, folded.narrow.weight.shape[1], name=f"{name}.norm")
    wide = graph.linear(normed, folded.widen, name=f"{name}.widen")
    active = graph.activation(wide, folded.activation, name=f"{name}.active")
    return graph.node("Add", x, graph.linear(active, folded.narrow, name=f"{name}.narrow"), name=name)


def _pooling_head(graph: GraphBuilder, head: PoolingHead, norm: Norm, x: str) -> str:
    """Adds SigLIP's pooling behind the last norm; gives (N, 1, D).

    The query of a head is the same for all pictures. So its product with the keys' weights is one vector, whose product
    with each patch is the score; what it adds to all scores alike does not count. Patches are mixed before the product
    with the values' weights. Both together spare the keys and values of all patches.
    """
    width, heads = head.narrow.weight.shape[1], head.attention.heads
    behind = head.attention.behind(norm)
    asked = head.probe @ head.attention.scaled.weight + head.attention.scaled.bias
    per_head = (behind.key.weight.reshape(width, heads, -1) * asked.reshape(1, heads, -1)).sum(2)
    bare = graph.norm(x, norm.bare, width, name="head.bare")
    scores = graph.node("MatMul", bare, graph.constant("head.scores.weight", per_head), name="head.scores")
    by_head = graph.node("Transpose", scores, name="head.scores_by_head", perm=[0, 2, 1])
    shares = graph.node("Softmax", by_head, name="head.shares", axis=-1)
    mixed = graph.node("MatMul", shares, bare, name="head.mixed")  # (N, heads, D)
    column = graph.node("Unsqueeze", mixed, graph.constant("head.axis", [2]), name="head.column")
    value = behind.value.weight.reshape(width, heads, -1).transpose(1, 0, 2)
    values = graph.node("MatMul", column, graph.constant("head.value.weight", value), name="head.values")
    flat = graph.node("Reshape", values, graph.constant("head.flat", [-1, 1, width]), name="head.joined")
    assert behind.value.bias is not None
    output = head.attention.output
    assert output.bias is not None
    # Shares sum to 1, so that the values' bias passes through.
    bias = (behind.value.bias.astype(np.float64) @ output.weight + output.bias).astype(np.float32)
    pooled = graph.linear(flat, Linear(output.weight, bias), name="head.attended")
    folded = replace(head, norm=head.norm.bare, widen=head.norm.folded_into(head.widen))
    return _feed_forward(graph, folded, pooled, name="head")


def _ones(graph: GraphBuilder, mask: str) -> str:
    """Adds the weights (B, 1) of single tokens."""
    batch = graph.node("Shape", mask, name="batch_size", start=0, end=1)
    shape = graph.node("Concat", batch, graph.constant("single", [1]), name="weights_shape", axis=0)
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return graph.node("ConstantOfShape", shape, name="ones", value=one)


def _output(graph: GraphBuilder, level: str, tokens: tuple[str, int, int], weights: str) -> None:
    name, count, width = tokens
    graph.output(name, TensorSpec(f"{level}_tokens", "float32", ("batch", count, width)))
    graph.output(weights, TensorSpec(f"{level}_weights", "float32", ("batch", count)))


def num_weights(part: Any) -> int:
    """Returns the number of values of all arrays (D, E) in a tower or a part of one."""
    if isinstance(part, np.ndarray):
        return part.size
    if isinstance(part, tuple):
        return sum(map(num_weights, part))
    if is_dataclass(part):
        return sum(num_weights(getattr(part, item.name)) for item in fields(part))
    return 0
