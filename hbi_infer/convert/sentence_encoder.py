"""A BERT that encodes sentences, such as all-MiniLM-L6-v2, as ONNX graphs.

One graph gives the vector of a sentence: the mean of its tokens behind the last layer. The other gives the tokens of a
text in a bundle: at the first place the sentence, and at the place where each word begins that word alone, encoded as
if it were the whole sentence. All of them go through the network at once, as groups of one long row of tokens that
attend only to their own group: the sentence, and of each word its pieces between a start and an end of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from hbi_engines.engine import TensorSpec
from hbi_infer.convert.onnx_builder import Array, Attention, GraphBuilder, Linear, Norm
from hbi_infer.errors import BundleError

EPSILON = 1e-12
HEAD_WIDTH = 32
WORDS_WEIGHT = 0.2
"""Weight of all words of a text together; the sentence has the rest: a quarter of the sentence's."""

OUT_OF_REACH = -1e9
"""Number that is added to the score of a token of another group; its share is then 0."""


@dataclass(frozen=True)
class BertWeights:
    """Weights of a BERT.

    Attributes:
        tensors: Name -> weights (D, D) and others, as `transformers` names them.
        layers: Number of layers.
        width: D.
    """

    tensors: Mapping[str, Array]
    layers: int
    width: int

    def tensor(self, name: str) -> Array:
        """Returns weights of any shape such as (D, D).

        Raises:
            BundleError: They are missing.
        """
        if name not in self.tensors:
            raise BundleError(f"the sentence encoder has no {name}")
        return self.tensors[name]

    def linear(self, name: str) -> Linear:
        """Returns a layer (D, E); `transformers` stores (E, D)."""
        return Linear(self.tensor(f"{name}.weight").T, self.tensor(f"{name}.bias"))

    def norm(self, name: str) -> Norm:
        """Returns a layer norm over D values."""
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), EPSILON)


@dataclass(frozen=True)
class WordFlags:
    """Facts of each of the W tokens of the vocabulary, (W,) bool.

    Attributes:
        begins: Whether a token begins a word; tokens that begin and end a text do not.
        continues: Whether it continues one.
        counts: Whether a word of this token alone says what can be seen.
        start_id: Id of the token that begins a text.
        end_id: Id of the token that ends one.
    """

    begins: Array
    continues: Array
    counts: Array
    start_id: int
    end_id: int


def sentence_graph(weights: BertWeights) -> bytes:
    """Returns a graph from `token_ids` and `token_mask` (B, T) to `vectors` (B, D), the unit vectors of B sentences."""
    graph = GraphBuilder("sentence_encoder")
    ids, mask = _inputs(graph)
    places = _places(graph, ids)
    real = graph.node("Cast", mask, name="real", to=TensorProto.FLOAT)
    row = graph.node("Unsqueeze", mask, graph.constant("key_axes", [1, 2]), name="real_keys")
    hidden = _network(graph, weights, ids, places, row)
    pooled = _mean(graph, hidden, real, name="mean")
    graph.output(graph.unit(pooled, name="unit"), TensorSpec("vectors", "float32", ("batch", weights.width)))
    return graph.serialised()


def text_graph(weights: BertWeights, flags: WordFlags) -> bytes:
    """Returns the graph `text_encoder` of a bundle, with one level of as many tokens as the text has."""
    graph = GraphBuilder("text_encoder")
    ids, mask = _inputs(graph)
    words = _Words(graph, ids, mask, flags)
    hidden = _network(graph, weights, *words.row(), words.reach())
    names = [f"hidden_{part}" for part in ("sentence", "pieces", "starts", "ends")]
    sentence, pieces, starts, ends = graph.nodes("Split", hidden, names=names, axis=1, num_outputs=4)
    vector = _mean(graph, sentence, words.real, name="sentence")
    alone = words.mean(pieces, starts, ends)
    first = graph.node("Unsqueeze", words.first, graph.constant("width_axis", [2]), name="first_rows")
    whole = graph.node("Unsqueeze", vector, graph.constant("row_axis", [1]), name="sentence_rows")
    tokens = graph.node("Where", first, whole, alone, name="tokens")
    graph.output(tokens, TensorSpec("entity_tokens", "float32", ("batch", "text_length", weights.width)))
    graph.output(words.weights(), TensorSpec("entity_weights", "float32", ("batch", "text_length")))
    graph.output(words.slots(), TensorSpec("entity_slots", "int64", ("batch", "text_length")))
    return graph.serialised()


def _inputs(graph: GraphBuilder) -> tuple[str, str]:
    shape = ("batch", "text_length")
    return graph.input(TensorSpec("token_ids", "int64", shape)), graph.input(TensorSpec("token_mask", "bool", shape))


def _places(graph: GraphBuilder, ids: str) -> str:
    """Adds the place (B, T) of each token, from 0 on."""
    zero = graph.shared("int_zero", np.array(0))
    zeros = graph.node("Mul", ids, zero, name="id_zeros")
    ones = graph.node("Add", zeros, graph.shared("int_one", np.array(1)), name="id_ones")
    counts = graph.node("CumSum", ones, graph.shared("time_axis", np.array(1)), name="place_counts")
    return graph.node("Sub", counts, graph.shared("int_one", np.array(1)), name="places")


def _mean(graph: GraphBuilder, hidden: str, real: str, *, name: str) -> str:
    """Adds the mean (B, D) of tokens (B, T, D) that are real (B, T)."""
    row = graph.node("Unsqueeze", real, graph.shared("one_row", [1]), name=f"{name}.row")
    total = graph.node("MatMul", row, hidden, name=f"{name}.total")
    count = graph.node("ReduceSum", row, graph.shared("last_axis", [-1]), name=f"{name}.count", keepdims=1)
    mean = graph.node("Div", total, count, name=f"{name}.rows")
    return graph.node("Squeeze", mean, graph.shared("one_row", [1]), name=name)


def _network(graph: GraphBuilder, weights: BertWeights, ids: str, places: str, reach: str) -> str:
    """Adds the network on tokens (B, N) at their places; `reach` (B, 1, 1 or N, N) says who attends to whom."""
    words = graph.constant("words", weights.tensor("embeddings.word_embeddings.weight"))
    # All tokens are of the first kind of segment.
    table = weights.tensor("embeddings.position_embeddings.weight")
    table = table + weights.tensor("embeddings.token_type_embeddings.weight")[0]
    embedded = graph.node(
        "Add",
        graph.node("Gather", words, ids, name="word_vectors"),
        graph.node("Gather", graph.constant("place_table", table), places, name="place_vectors"),
        name="embedded",
    )
    x = graph.norm(embedded, weights.norm("embeddings.LayerNorm"), weights.width, name="embedding_norm")
    term = graph.node("Where", reach, graph.constant("within", 0.0), graph.constant("out", OUT_OF_REACH), name="mask")
    for number in range(weights.layers):
        name = f"encoder.layer.{number}"
        attention = Attention(
            query=weights.linear(f"{name}.attention.self.query"),
            key=weights.linear(f"{name}.attention.self.key"),
            value=weights.linear(f"{name}.attention.self.value"),
            output=weights.linear(f"{name}.attention.output.dense"),
            heads=weights.width // HEAD_WIDTH,
        )
        mixed = graph.attention(x, attention, name=f"{name}.attention", mask=term)
        x = graph.node("Add", x, mixed, name=f"{name}.first_sum")
        x = graph.norm(x, weights.norm(f"{name}.attention.output.LayerNorm"), weights.width, name=f"{name}.first_norm")
        wide = graph.linear(x, weights.linear(f"{name}.intermediate.dense"), name=f"{name}.wide")
        active = graph.activation(wide, "gelu", name=f"{name}.active")
        narrow = graph.linear(active, weights.linear(f"{name}.output.dense"), name=f"{name}.narrow")
        x = graph.node("Add", x, narrow, name=f"{name}.second_sum")
        x = graph.norm(x, weights.norm(f"{name}.output.LayerNorm"), weights.width, name=f"{name}.second_norm")
    return x


class _Words:
    """The words of B texts of T tokens, found in the graph; arrays are (B, T) where nothing else is said."""

    def __init__(self, graph: GraphBuilder, ids: str, mask: str, flags: WordFlags) -> None:
        self._graph, self._ids, self._flags = graph, ids, flags
        self._mask = mask
        self.real = graph.node("Cast", mask, name="real", to=TensorProto.FLOAT)
        self._places = _places(graph, ids)
        self.first = graph.node("Equal", self._places, graph.shared("int_zero", np.array(0)), name="is_first")
        self._begins = self._flag("begins", flags.begins)
        self._counts = self._flag("counts", flags.counts)
        inside = graph.node("Or", self._begins, self._flag("continues", flags.continues), name="is_inside")
        begun = graph.node("Cast", self._begins, name="begun", to=TensorProto.INT64)
        self._numbers = graph.node("CumSum", begun, graph.shared("time_axis", np.array(1)), name="word_numbers")
        self._inside = inside
        # (B, T, T): whether two tokens are of the same word
        same = self._pairs("Equal", self._numbers, self._numbers, name="same_number")
        both = self._pairs("And", inside, inside, name="both_inside")
        self._same = graph.node("And", same, both, name="same_word")
        self._same_number = graph.node("Cast", self._same, name="same_share", to=TensorProto.FLOAT)
        before = self._pairs("GreaterOrEqual", self._places, self._places, name="not_after")
        up_to = graph.node("And", self._same, before, name="same_up_to")
        self._within = self._count(up_to, name="place_in_word")
        self._length = self._count(self._same, name="word_length")

    def row(self) -> tuple[str, str]:
        """Adds the row (B, 4 * T) of sentence, pieces, starts and ends: the ids, and the places in their groups."""
        graph = self._graph
        zeros = graph.node("Mul", self._ids, graph.shared("int_zero", np.array(0)), name="row_zeros")
        starts = graph.node("Add", zeros, graph.constant("start_id", np.array(self._flags.start_id)), name="start_ids")
        ends = graph.node("Add", zeros, graph.constant("end_id", np.array(self._flags.end_id)), name="end_ids")
        last = graph.node("Add", self._length, graph.shared("int_one", np.array(1)), name="end_places")
        ids = graph.node("Concat", self._ids, self._ids, starts, ends, name="row_ids", axis=1)
        return ids, graph.node("Concat", self._places, self._within, zeros, last, name="row_places", axis=1)

    def reach(self) -> str:
        """Adds (B, 1, 4 * T, 4 * T): whether a token attends to another, a real one of its own group."""
        graph = self._graph
        zeros = graph.node("Mul", self._numbers, graph.shared("int_zero", np.array(0)), name="sentence_numbers")
        numbers = [zeros, self._numbers, self._numbers, self._numbers]
        groups = graph.node("Concat", *numbers, name="row_groups", axis=1)
        real = [self._mask, self._inside, self._begins, self._begins]
        is_real = graph.node("Concat", *real, name="row_real", axis=1)
        same = self._pairs("Equal", groups, groups, name="same_group")
        keys = graph.node("Unsqueeze", is_real, graph.shared("one_row", [1]), name="row_keys")
        within = graph.node("And", same, keys, name="row_reach")
        return graph.node("Unsqueeze", within, graph.shared("one_row", [1]), name="reach")

    def mean(self, pieces: str, starts: str, ends: str) -> str:
        """Adds the mean (B, T, D) of the pieces, start and end of the word that each token is of."""
        graph = self._graph
        total = graph.node("MatMul", self._same_number, pieces, name="piece_totals")
        total = graph.node("Add", graph.node("Add", total, starts, name="with_starts"), ends, name="with_ends")
        count = graph.node("Add", self._length, graph.constant("int_two", np.array(2)), name="word_counts")
        divisor = graph.node("Cast", count, name="word_divisors", to=TensorProto.FLOAT)
        divisor = graph.node("Unsqueeze", divisor, graph.constant("divisor_axis", [2]), name="divisor_rows")
        return graph.node("Div", total, divisor, name="word_means")

    def weights(self) -> str:
        """Adds the weights: words that count share `WORDS_WEIGHT`, and the sentence has the rest."""
        graph = self._graph
        one = graph.shared("int_one", np.array(1))
        longer = graph.node("Greater", self._length, one, name="is_longer")
        known = graph.node("Or", self._counts, longer, name="says_something")
        chosen = graph.node("And", self._begins, known, name="is_chosen")
        share = graph.node("Cast", chosen, name="chosen", to=TensorProto.FLOAT)
        count = graph.node("ReduceSum", share, graph.shared("last_axis", [-1]), name="num_chosen", keepdims=1)
        least = graph.node("Max", count, graph.constant("one", 1.0), name="chosen_divisor")
        scaled = graph.node("Mul", share, graph.constant("words_weight", WORDS_WEIGHT), name="chosen_weight")
        words = graph.node("Div", scaled, least, name="word_weights")
        taken = graph.node("ReduceSum", words, graph.shared("last_axis", [-1]), name="taken", keepdims=1)
        rest = graph.node("Sub", graph.shared("whole", 1.0), taken, name="rest")
        return graph.node("Where", self.first, rest, words, name="weights")

    def slots(self) -> str:
        """Adds the place where the word of each token begins, 0 for the first token, and -1 for all others."""
        graph = self._graph
        begun = graph.node("Cast", self._begins, name="begun_places", to=TensorProto.INT64)
        at = graph.node("Mul", begun, self._places, name="begin_places")
        same = graph.node("Cast", self._same, name="same_int", to=TensorProto.INT64)
        rows = graph.node("Unsqueeze", at, graph.shared("one_row", [1]), name="begin_rows")
        own = graph.node("Mul", same, rows, name="own_begin")
        found = graph.node("ReduceSum", own, graph.shared("last_axis", [-1]), name="word_begins", keepdims=0)
        in_words = graph.node("Where", self._inside, found, graph.constant("none", np.array(-1)), name="word_slots")
        return graph.node("Where", self.first, graph.shared("int_zero", np.array(0)), in_words, name="slots")

    def _flag(self, name: str, flags: Array) -> str:
        """Adds whether each real token of the texts is one of those with a flag (W,)."""
        table = self._graph.constant(f"{name}_table", flags.astype(np.int64))
        number = self._graph.node("Gather", table, self._ids, name=f"{name}_number")
        known = self._graph.node("Cast", number, name=f"{name}_flag", to=TensorProto.BOOL)
        return self._graph.node("And", known, self._mask, name=name)

    def _pairs(self, operator: str, left: str, right: str, *, name: str) -> str:
        """Adds a comparison (B, N, N) of each of N tokens with each."""
        rows = self._graph.node("Unsqueeze", left, self._graph.shared("last_axis", [-1]), name=f"{name}.rows")
        columns = self._graph.node("Unsqueeze", right, self._graph.shared("one_row", [1]), name=f"{name}.columns")
        return self._graph.node(operator, rows, columns, name=name)

    def _count(self, pairs: str, *, name: str) -> str:
        """Adds the number of tokens that each is paired with."""
        numbers = self._graph.node("Cast", pairs, name=f"{name}.numbers", to=TensorProto.INT64)
        return self._graph.node("ReduceSum", numbers, self._graph.shared("last_axis", [-1]), name=name, keepdims=0)
