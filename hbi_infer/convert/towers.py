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


def video_graph(tower: VisionTower, max_frames: int, *, stored: Stored = "float32") -> BuiltGraph:
    """Builds the graph `video_encoder`: frames (B, F, H, W, 3) uint8 to the tokens of both levels.

    Args:
        tower: The encoder of pictures.
        max_frames: F.
        stored: Format in which weights are stored.
    """
    graph = GraphBuilder("video_encoder", stored=stored)
    size = tower.size
    frames = graph.input(TensorSpec("frames", "uint8", ("batch", max_frames, size, size, 3)))
    mask = graph.input(TensorSpec("frame_mask", "bool", ("batch", max_frames)))
    feature = _picture(graph, tower, frames)
    width = _width(tower)
    tokens = graph.node("Reshape", feature, graph.constant("clips", [-1, max_frames, width]), name="features")
    real = graph.node("Cast", mask, name="real", to=TensorProto.FLOAT)
    last = graph.shared("last_axis", [-1])
    count = graph.node("ReduceSum", real, last, name="count", keepdims=1)
    weights = graph.node(
        "Div", real, graph.node("Max", count, graph.constant("one", 1.0), name="divisor"), name="share"
    )
    row = graph.node("Unsqueeze", weights, graph.constant("rows", [1]), name="share_row")
    mean = graph.node("MatMul", row, graph.unit(tokens, name="unit"), name="mean")
    _output(graph, "frame", (tokens, max_frames, width), weights)
    _output(graph, "video", (mean, 1, width), _ones(graph, mask))
    return graph.built()


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


def _picture(graph: GraphBuilder, tower: VisionTower, frames: str) -> str:
    """Adds the encoding of pictures; gives (N, 1, E)."""
    lead = 0 if tower.class_token is None else 1
    patches = pixels_to_patches(graph, frames, size=tower.size, patch=tower.patch, name="patches", lead=lead)
    product = graph.node(
        "MatMul", patches, graph.constant("embedding", tower.embedding.weight, channels=1), name="embedded"
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
    layers = tower.layers if tower.head is not None else tower.layers[:-1]
    for number, layer in enumerate(layers):
        x = _layer(graph, layer, x, name=f"layer{number}")
    if tower.head is not None:
        pooled = _pooling_head(graph, tower.head, tower.norm, x)
        return pooled if tower.projection is None else graph.linear(pooled, tower.projection, name="feature")
    first = graph.constant("first", [0])
    x = _last_layer(graph, tower.layers[-1], x, lambda of, name: graph.node("Gather", of, first, name=name, axis=1))
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


def _width(tower: VisionTower) -> int:
    return int((tower.positions if tower.projection is None else tower.projection.weight).shape[1])


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
