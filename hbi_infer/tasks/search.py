"""Searching: text to clips, video to clips, video to texts.

Scores are exact (weighted token-wise interaction, both directions). While the clips that may be found are few, every
one of them is scored. Beyond that the pooled vectors are scanned first, all of them, and the clips nearest to the
query, the shortlist, are scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError, VideoError
from hbi_infer.index.store import EVERYTHING, ClipIds, Filter, StoredClip
from hbi_infer.model.encoder import BATCH_CLIPS, Encoder, encode_clips
from hbi_infer.tokens.levels import Levels, item, pooled
from hbi_infer.tokens.similarity import ClipMatrix, best_cosines, similarity, top

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index
    from hbi_infer.video.decoded_video import Clip

EXACT_BYTES = 512 * 2**20
"""Every clip is scored while their float32 tokens fit in this: 30,000 clips of 17 tokens of width 256."""

SHORTLIST = 1000
NUM_BEST_FRAMES = 3

LETTERS_SHOWN = 60
"""Of a text that is too long, in the warning that says so."""


class QueryTruncatedWarning(UserWarning):
    """A query is longer than the model takes; what follows the cut was not looked at."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """One result.

    Attributes:
        rank: From 1.
        score: Higher is better. Comparable between results of one query, and of one model.
        path: Of the video.
        start_seconds: Where in the video the clip begins.
        end_seconds: Where it ends.
        best_frame_seconds: Times of the frames nearest to a word of the query (to a frame or a group of frames, if
            the query is a video), best first.
        video_seconds: Duration of the video, None when not known.
    """

    rank: int
    score: float
    path: Path
    start_seconds: float
    end_seconds: float
    best_frame_seconds: tuple[float, ...]
    video_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path), "best_frame_seconds": list(self.best_frame_seconds)}


@dataclass(frozen=True, kw_only=True)
class CaptionMatch:
    """One caption for a video.

    Attributes:
        rank: From 1.
        score: Higher is better.
        caption: As given.
        start_seconds: Where in the video the clip that fits it best begins.
        end_seconds: Where that clip ends.
    """

    rank: int
    score: float
    caption: str
    start_seconds: float
    end_seconds: float

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return asdict(self)


def search(
    index: Index,
    queries: Sequence[str],
    *,
    top_k: int = 10,
    where: Filter = EVERYTHING,
    all_clips: bool = False,
    shortlist: int = SHORTLIST,
    exact_up_to: int | None = None,
    rerank: int = 0,
) -> list[list[Match]]:
    """Text to video.

    Args:
        index: What to search.
        queries: Sentences.
        top_k: The most results for each.
        where: Only videos that pass.
        all_clips: Whether a video may be found with several of its clips; by default with the best one.
        shortlist: Clips that are scored exactly when there are too many to score all.
        exact_up_to: Every clip is scored while there are not more than this; by default as many as fit in 512 MiB.
        rerank: So many of the best results are scored anew, by reconstructed tokens, and ordered by that; 0 leaves it
            out. Fewer than `top_k` count as `top_k`.

    Returns:
        For each query its matches, best first; equal scores in the order of indexing.

    Raises:
        InputError: A query is empty, or a number is less than 1.
        BundleError: `rerank` is given, and the bundle has no reconstruction.

    Warns:
        QueryTruncatedWarning: A query is too long.
    """
    if rerank:
        index.encoder.bundle.require("rerank")
    if not queries:
        return []
    text = encode_texts(index.encoder, queries, "query")
    finder = _Finder(index, where, top_k, all_clips, shortlist, exact_up_to, rerank)
    return [finder.find([item(text, row)]) for row in range(len(queries))]


def like(
    index: Index,
    video: Path,
    *,
    top_k: int = 10,
    where: Filter = EVERYTHING,
    all_clips: bool = False,
    shortlist: int = SHORTLIST,
    exact_up_to: int | None = None,
) -> list[Match]:
    """Video to video. A clip's score is that of the clip of `video` which it is most like.

    Args:
        index: What to search.
        video: Any video; if it is in the index, what is kept there is used, and it is not among the results.
        top_k: The most results.
        where: Only videos that pass.
        all_clips: Whether a video may be found with several of its clips; by default with the best one.
        shortlist: Clips that are scored exactly when there are too many to score all.
        exact_up_to: Every clip is scored while there are not more than this; by default as many as fit in 512 MiB.

    Raises:
        VideoError: The video cannot be decoded.
        InputError: A number is less than 1.
    """
    finder = _Finder(index, where, top_k, all_clips, shortlist, exact_up_to)
    path = index.known_path(video)
    own_ids, records = index.store.fetch_tokens(index.store.clip_ids_of(path) if path else np.empty(0, np.int64))
    if len(own_ids):
        batches: Sequence[Levels] = [index.store.layout.unpack(records)]
    else:
        batches = list(encode_clips(index.encoder, decode_clips(index.encoder, video)))
    parts = [item(levels, row) for levels in batches for row in range(_size(levels))]
    return finder.find(parts, without=own_ids)


def rank_captions(
    encoder: Encoder, video: Path, captions: Sequence[str], *, top_k: int | None = None
) -> list[CaptionMatch]:
    """Video to text: which captions fit a video. A caption's score is that of the clip that it fits best.

    Args:
        encoder: The model.
        video: Any video.
        captions: Sentences.
        top_k: The most results; None ranks all.

    Raises:
        VideoError: The video cannot be decoded.
        InputError: There is no caption, or one is empty.

    Warns:
        QueryTruncatedWarning: A caption is too long.
    """
    if not captions:
        raise InputError("there are no captions to rank: give at least one")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be at least 1")
    text = encode_texts(encoder, captions, "caption")
    clips = decode_clips(encoder, video)
    partner = encoder.bundle.manifest.padded_partner
    # (captions, clips)
    scores = np.concatenate(
        [similarity(text, levels, encoder.rates, padded_partner=partner) for levels in encode_clips(encoder, clips)],
        axis=1,
    )
    best_clip = scores.argmax(axis=1)
    return [
        CaptionMatch(
            rank=rank,
            score=float(scores[row, best_clip[row]]),
            caption=captions[row],
            start_seconds=clips[best_clip[row]].start_seconds,
            end_seconds=clips[best_clip[row]].end_seconds,
        )
        for rank, row in enumerate(top(scores.max(axis=1), top_k or len(captions)), start=1)
    ]


@dataclass(frozen=True)
class _Scored:
    """Clips with their scores: ids (N,) ascending, scores (N,), and which part of the query (N,) gave the score."""

    ids: ClipIds
    scores: npt.NDArray[np.float32]
    parts: npt.NDArray[np.int64]

    def __getitem__(self, chosen: npt.NDArray[Any]) -> _Scored:
        return _Scored(self.ids[chosen], self.scores[chosen], self.parts[chosen])


_Chosen = tuple[StoredClip, float, int]
"""A clip that was found, its score, and the part of the query that gave it."""


class _Finder:
    """Searches one index, with one set of options, for one query after another.

    A query is a list of parts, each a batch of one: one text, or every clip of a video. The best part counts.
    """

    def __init__(
        self,
        index: Index,
        where: Filter,
        top_k: int,
        all_clips: bool,
        shortlist: int,
        exact_up_to: int | None,
        rerank: int = 0,
    ) -> None:
        for name, value in (("top_k", top_k), ("shortlist", shortlist)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        self._index = index
        self._where = where
        self._top_k = top_k
        self._all_clips = all_clips
        self._rerank = rerank > 0
        self._num_chosen = max(rerank, top_k)
        self._shortlist = max(shortlist, self._num_chosen)
        if exact_up_to is None:
            layout = index.store.layout
            exact_up_to = EXACT_BYTES // (layout.num_tokens * layout.width * 4)
        num_clips = index.store.num_clips()
        # None: every clip may be found. Listing them all takes longer than searching them.
        self._allowed = None if where == EVERYTHING else index.store.clip_ids(where)
        self._num_allowed = num_clips if self._allowed is None else len(self._allowed)
        self._matrix: ClipMatrix | None = None
        if num_clips <= exact_up_to:
            self._matrix = index.resident_matrix()
        elif self._allowed is not None and len(self._allowed) <= exact_up_to:
            self._matrix = index.matrix(self._allowed)

    def find(self, query: Sequence[Levels], *, without: ClipIds | None = None) -> list[Match]:
        """The best matches, without those clips."""
        without = np.empty(0, np.int64) if without is None else without
        size = self._shortlist + len(without)
        while True:
            scored = self._score(query, size)
            if len(without):
                scored = scored[np.isin(scored.ids, without, invert=True)]
            chosen = self._choose(scored)
            # A few long videos may fill a shortlist of clips: look further for other videos.
            if self._matrix is not None or len(chosen) == self._num_chosen or size >= self._num_allowed:
                return self._matches(query, self._reranked(query, chosen) if self._rerank else chosen)
            size *= 4

    def _score(self, query: Sequence[Levels], size: int) -> _Scored:
        """Exact scores: of all allowed clips while they are few, else of the `size` nearest candidates of each part."""
        if self._matrix is not None:
            scored = _score_all(self._matrix, query)
            return scored if self._allowed is None else scored[np.isin(scored.ids, self._allowed)]
        rates = self._index.encoder.rates
        near = [self._index.store.candidates(pooled(part, rates)[0], self._where, size)[0] for part in query]
        return _score_all(self._index.matrix(np.unique(np.concatenate(near))), query)

    def _choose(self, scored: _Scored) -> list[_Chosen]:
        """The best clips with their score and part of the query; one of each video unless all are wanted."""
        chosen: list[_Chosen] = []
        seen: set[str] = set()
        order = top(scored.scores, len(scored.scores))
        step = 4 * self._num_chosen  # mostly the first few are enough
        for start in range(0, len(order), step):
            batch = scored[order[start : start + step]]
            clips = {clip.clip_id: clip for clip in self._index.store.clips(batch.ids.tolist())}
            for row, clip_id in enumerate(batch.ids.tolist()):
                clip = clips.get(clip_id)  # None if it is gone since it was scored
                if clip is None or (clip.path in seen and not self._all_clips):
                    continue
                seen.add(clip.path)
                chosen.append((clip, float(batch.scores[row]), int(batch.parts[row])))
                if len(chosen) == self._num_chosen:
                    return chosen
        return chosen

    def _reranked(self, query: Sequence[Levels], chosen: list[_Chosen]) -> list[_Chosen]:
        """The best of the chosen clips by the scores of their reconstructed tokens; the query is one text."""
        store = self._index.store
        ids, records = store.fetch_tokens(np.array([clip.clip_id for clip, _, _ in chosen], np.int64))
        tokens = store.layout.unpack(records)
        scores: dict[int, float] = {}
        for start in range(0, len(ids), BATCH_CLIPS):
            some = slice(start, start + BATCH_CLIPS)
            found = self._index.encoder.rerank(query[0], {name: level[some] for name, level in tokens.items()})
            scores |= dict(zip(ids[some].tolist(), found.tolist(), strict=True))
        kept = [(clip, scores[clip.clip_id], part) for clip, _, part in chosen if clip.clip_id in scores]
        return sorted(kept, key=lambda one: -one[1])[: self._top_k]

    def _matches(self, query: Sequence[Levels], chosen: Sequence[_Chosen]) -> list[Match]:
        store = self._index.store
        ids, records = store.fetch_tokens(np.array([clip.clip_id for clip, _, _ in chosen], np.int64))
        tokens = store.layout.unpack(records)
        frames = {
            clip.clip_id: _best_frames(query[part], item(tokens, int(row)), clip)
            for clip, _, part in chosen
            for row in np.flatnonzero(ids == clip.clip_id)
        }
        return [
            Match(
                rank=rank,
                score=score,
                path=self._index.folder / clip.path,
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                best_frame_seconds=frames.get(clip.clip_id, ()),
                video_seconds=clip.video_seconds,
            )
            for rank, (clip, score, _) in enumerate(chosen, start=1)
        ]


def _score_all(matrix: ClipMatrix, query: Sequence[Levels]) -> _Scored:
    # (parts, N)
    scores = np.stack([matrix.score(part) for part in query])
    return _Scored(matrix.ids, scores.max(axis=0), scores.argmax(axis=0))


def _best_frames(query: Levels, tokens: Levels, clip: StoredClip) -> tuple[float, ...]:
    """Times of the frames of the first level, which has a token for each frame, that lie nearest to the query."""
    name, level = next(iter(tokens.items()))
    if level.weights.shape[1] != len(clip.frame_seconds):
        return ()
    cosines = best_cosines(query[name], level)
    real = np.flatnonzero((level.weights[0] > 0) & np.isfinite(clip.frame_seconds))
    best = real[top(cosines[real], NUM_BEST_FRAMES)]
    return tuple(float(seconds) for seconds in clip.frame_seconds[best])


def encode_texts(encoder: Encoder, texts: Sequence[str], what: str) -> Levels:
    """Tokens of the texts; an empty one is refused, a truncated one warned of."""
    for text in texts:
        if not text.strip():
            raise InputError(f"a {what} is empty: give a sentence that says what to find")
    limit = encoder.bundle.manifest.max_words
    for text, cut in zip(texts, encoder.tokenize(texts).truncated, strict=True):
        if cut is not None:
            warnings.warn(
                f"the {what} {_beginning(text)!r} is longer than the {limit} tokens that the model takes: cut at word "
                f"{cut.word_number}, {_beginning(cut.word)!r}",
                QueryTruncatedWarning,
                stacklevel=3,
            )
    return encoder.encode_text(texts)


def _beginning(text: str) -> str:
    return text if len(text) <= LETTERS_SHOWN else f"{text[:LETTERS_SHOWN]}..."


def decode_clips(encoder: Encoder, video: Path) -> tuple[Clip, ...]:
    """The clips of a video.

    Raises:
        VideoError: It cannot be decoded.
    """
    from hbi_infer.video.reader import decode

    decoded = decode(video, encoder.bundle.manifest.sampling)
    if decoded.status == "failed":
        raise VideoError(f"{video} {decoded.reason}: give a video that can be played")
    return decoded.clips


def _size(levels: Levels) -> int:
    return len(next(iter(levels.values())))
