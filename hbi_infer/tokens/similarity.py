"""Weighted token-wise interaction: how well a text, or another video, matches a clip.

For the cosines S (T, V) of the tokens of a level, with the text's weights a (T,) and the video's weights u (V,):

    1/2 * (sum_t a_t max_v S_tv + sum_v u_v max_t S_tv)

and the score is the sum over the levels of rate times that. With the directions "text_to_video" the similarity is
the first sum alone, sum_t a_t max_v S_tv: a text is found wherever one frame shows it, however little the other frames
have to do with it.

A token of weight 0 is padding. `padded_partner` says what it does in the other side's maximum: "ignore", it takes no
part; "zero", it counts as a cosine of 0 (what the authors' released code does at the entity level).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.layout import PackedTokens, TokenLayout, widen
from hbi_infer.tokens.levels import Levels, LevelTokens, item, named_inputs, unit
from hbi_infer.tokens.parallel import in_parts

if TYPE_CHECKING:
    from hbi_engines.engine import Engine

Float32Array: TypeAlias = npt.NDArray[np.float32]
PaddedPartner: TypeAlias = Literal["ignore", "zero"]
Directions: TypeAlias = Literal["both", "text_to_video"]

CHUNK_CLIPS = 1024
"""Number of clips scored at a time: their cosines (12 x 1,024 x 16 float32 is 0.8 MB) stay in a core's cache."""

TEXTS_AT_A_TIME, CLIPS_AT_A_TIME = 64, 1024
"""Numbers that the graph `similarity` scores at a time: without a kernel for it, its cosines take 200 MB."""


def similarity(
    text: Levels,
    video: Levels,
    rates: Mapping[str, float],
    *,
    padded_partner: PaddedPartner = "ignore",
    directions: Directions = "both",
) -> Float32Array:
    """Computes the scores of every text with every video: the reference, written as the formula stands.

    Args:
        text: Levels of Bt texts.
        video: Levels of Bv videos.
        rates: Level name -> its rate in the sum.
        padded_partner: Meaning of padding, see the top of this file.
        directions: Sums that count, see the top of this file.

    Returns:
        (Bt, Bv) float32.
    """
    scores = np.zeros((len(_first(text)), len(_first(video))), np.float32)
    for name, rate in rates.items():
        texts, videos = text[name], video[name]
        video_units, text_units = unit(videos.tokens), unit(texts.tokens)
        real_video = (videos.weights > 0)[:, :, None]
        for row, (units, weights) in enumerate(zip(text_units, texts.weights, strict=True)):
            real_text = weights > 0
            # (Bv * V, T) -> (Bv, V, T)
            cosines = (video_units.reshape(-1, units.shape[1]) @ units.T).reshape(*videos.weights.shape, -1)
            if padded_partner == "zero":
                best_video = best_text = np.where(real_video & real_text, cosines, 0)
            else:
                best_video = np.where(real_video, cosines, -np.inf)
                best_text = np.where(real_text, cosines, -np.inf)
            text_sum = best_video.max(axis=1) @ weights
            if directions == "text_to_video":
                scores[row] += np.float32(rate) * text_sum
                continue
            video_sum = np.einsum("bv,bv->b", videos.weights, best_text.max(axis=2))
            scores[row] += np.float32(0.5 * rate) * (text_sum + video_sum)
    return scores


def fits(engine: Engine, text: Levels, video: Levels) -> bool:
    """Returns whether a graph `similarity` takes the numbers of tokens of Bt texts and Bv clips; a clip has others."""
    given = named_inputs("text", text) | named_inputs("video", video)
    return all(
        declared in (size, "text_length")
        for spec in engine.inputs
        for size, declared in zip(given[spec.name].shape[1:], spec.shape[1:], strict=True)
    )


def similarity_by_graph(engine: Engine, text: Levels, video: Levels) -> Float32Array:
    """Computes scores (Bt, Bv) float32 of every text with every video, by a bundle's graph `similarity`."""
    texts, videos = named_inputs("text", text), named_inputs("video", video)
    scores = np.empty((len(_first(text)), len(_first(video))), np.float32)
    for top in range(0, scores.shape[0], TEXTS_AT_A_TIME):
        rows = slice(top, top + TEXTS_AT_A_TIME)
        some = {name: array[rows] for name, array in texts.items()}
        for left in range(0, scores.shape[1], CLIPS_AT_A_TIME):
            columns = slice(left, left + CLIPS_AT_A_TIME)
            pairs = some | {name: array[columns] for name, array in videos.items()}
            scores[rows, columns] = engine.run(pairs)["scores"]
    return scores


class ClipScorer(Protocol):
    """Clips that can be scored against queries."""

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(N,) the clips' ids, in the order of their scores."""

    def score_each(self, queries: Sequence[Levels]) -> Float32Array:
        """Computes scores (B, N) float32 of B queries, each a batch of one, with every clip."""


class ClipMatrix:
    """Unit tokens of many clips in memory, ready to be scored against one query after another.

    Scoring costs little more than the matrix product: the tokens are kept chunk by chunk in the order (V, clips), so
    that both maxima run along whole rows of the cosines (T, V, clips). Padding needs no mask: a padded token is
    replaced by a copy of a real one of its clip, which changes no maximum, or by zeros where it is to count as 0.

    Args:
        layout: Layout of the records that `extend` takes.
        rates: Level name -> its rate in the sum; a level of rate 0 is not kept.
        capacity: Largest number of clips.
        padded_partner: Meaning of padding, see the top of this file.
        directions: Sums that count, see the top of this file.
    """

    def __init__(
        self,
        layout: TokenLayout,
        rates: Mapping[str, float],
        capacity: int,
        *,
        padded_partner: PaddedPartner = "ignore",
        directions: Directions = "both",
    ) -> None:
        self._layout = layout
        self._rates = {name: np.float32(rate) for name, rate in rates.items() if rate != 0}
        self._padded_partner = padded_partner
        self._directions = directions
        self._ids = np.empty(0, np.int64)
        self._chunks: list[slice] = []
        # Level name -> unit tokens (V * capacity, D), and weights (V * capacity,), both chunk after chunk.
        sizes = {name: capacity * num_tokens for name, num_tokens in layout.levels if name in self._rates}
        self._tokens = {name: np.empty((size, layout.width), np.float32) for name, size in sizes.items()}
        self._weights = {name: np.empty(size, np.float32) for name, size in sizes.items()}

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(N,) the clips' ids, in the order of their scores."""
        return self._ids

    def extend(self, ids: npt.NDArray[np.int64], records: PackedTokens) -> None:
        """Adds clips: their ids (B,) and records (B,)."""
        for start in range(0, len(ids), CHUNK_CLIPS):
            chunk = records[start : start + CHUNK_CLIPS]
            clips = slice(len(self._ids) + start, len(self._ids) + start + len(chunk))
            self._chunks.append(clips)
            for name in self._rates:
                part = self._layout.slices[name]
                self._put(name, clips, chunk["tokens"][:, part], chunk["weights"][:, part])
        self._ids = np.concatenate([self._ids, ids])

    def _put(self, name: str, clips: slice, tokens: npt.NDArray[np.float16], weights: Float32Array) -> None:
        """Puts tokens (B, V, D) and weights (B, V) of a chunk in their places, padding replaced."""
        clip, token = np.nonzero(weights == 0)
        if len(clip):
            tokens = tokens.copy()
            real = weights.argmax(axis=1)
            tokens[clip, token] = 0 if self._padded_partner == "zero" else tokens[clip, real[clip]]
        num_clips, num_tokens, width = tokens.shape
        rows = slice(clips.start * num_tokens, clips.stop * num_tokens)
        # (B, V, D) -> (V, B, D)
        widen(tokens.transpose(1, 0, 2), self._tokens[name][rows].reshape(num_tokens, num_clips, width))
        self._weights[name][rows] = weights.T.ravel()

    def score(self, query: Levels) -> Float32Array:
        """Computes scores (N,) float32 of one query (a batch of one text, or of one clip) with every clip."""
        scores: Float32Array = self.score_each([query])[0]
        return scores

    def score_all(self, queries: Levels) -> Float32Array:
        """Computes scores (B, N) float32 of a batch of B queries with every clip."""
        return self.score_each([item(queries, row) for row in range(len(_first(queries)))])

    def score_each(self, queries: Sequence[Levels]) -> Float32Array:
        """Computes scores (B, N) float32 of B queries, each a batch of one, with every clip.

        The clips' tokens are read once for all queries.
        """
        scores = np.zeros((len(queries), len(self._ids)), np.float32)
        sides = {name: _Side.of([self._query_side(query[name]) for query in queries]) for name in self._rates}
        levels = dict(self._layout.levels)

        def score(part: slice) -> None:
            for clips in self._chunks[part]:
                for name, rate in self._rates.items():
                    rows = slice(clips.start * levels[name], clips.stop * levels[name])
                    # BLAS is quicker at (rows, D) x (D, S) than at its transpose.
                    cosines = self._tokens[name][rows] @ sides[name].units.T
                    clip_weights = self._weights[name][rows].reshape(levels[name], -1)
                    scores[:, clips] += rate * _interactions(cosines, sides[name], clip_weights, self._directions)

        in_parts(score, len(self._chunks))
        return scores

    def _query_side(self, level: LevelTokens) -> tuple[Float32Array, Float32Array]:
        """Returns unit tokens (T, D) and weights (T,) of a query, with padding left out or replaced by one zero."""
        weights = level.weights[0].astype(np.float32)
        real = weights > 0
        units, weights = unit(level.tokens[0])[real], weights[real]
        if self._padded_partner == "zero" and not real.all():
            units, weights = np.pad(units, ((0, 1), (0, 0))), np.pad(weights, (0, 1))
        return units, weights


class _Side(NamedTuple):
    """The tokens of Q queries at one level, S together.

    Attributes:
        units: (S, D) unit tokens, one query's after another's.
        weights: (Q, S) each query's weights of its own tokens, 0 for those of others.
        starts: (Q,) the place of each query's first token.
    """

    units: Float32Array
    weights: Float32Array
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sides: Sequence[tuple[Float32Array, Float32Array]]) -> _Side:
        """Joins the unit tokens (T, D) and weights (T,) of queries."""
        ends = np.cumsum([len(own) for _, own in sides])
        starts = ends - [len(own) for _, own in sides]
        weights = np.zeros((len(sides), ends[-1]), np.float32)
        for row, (start, (_, own)) in enumerate(zip(starts, sides, strict=True)):
            weights[row, start : start + len(own)] = own
        return cls(np.concatenate([units for units, _ in sides]), weights, starts)


def _interactions(
    cosines: Float32Array, queries: _Side, clip_weights: Float32Array, directions: Directions
) -> Float32Array:
    """Computes interactions (Q, B) from cosines (V * B, S) of clips with the tokens of queries, and weights (V, B)."""
    # (V * B, S) -> (S, V * B) -> (S, V, B): a copy that is in the cache
    turned = np.ascontiguousarray(cosines.T).reshape(-1, *clip_weights.shape)
    text_sums: Float32Array = queries.weights @ turned.max(axis=1)
    if directions == "text_to_video":
        return text_sums
    # `np.maximum.reduceat` takes ten times as long.
    best_texts = [own.max(axis=0) for own in np.split(turned, queries.starts[1:])]
    video_sums: Float32Array = np.einsum("vb,qvb->qb", clip_weights, best_texts)
    return np.float32(0.5) * (text_sums + video_sums)


def best_cosines(query: LevelTokens, clip: LevelTokens) -> Float32Array:
    """Computes the cosine (V,) float32 of each token of one clip with the query's token nearest to it."""
    units = unit(query.tokens[0])[query.weights[0] > 0]
    cosines: Float32Array = (units @ unit(clip.tokens[0]).T).max(axis=0)
    return cosines


def top(scores: npt.NDArray[np.floating[Any]], k: int) -> npt.NDArray[np.int64]:
    """Returns the positions (K,) of the k highest scores (N,), or of all, best first; of equal ones the first."""
    positions = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, -k)[-k]
        positions = positions[scores >= least]
    return positions[np.argsort(-scores[positions], kind="stable")][:k]


def _first(levels: Levels) -> LevelTokens:
    return next(iter(levels.values()))
