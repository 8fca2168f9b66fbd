"""Searching an index: texts to clips, several texts together, and a video to clips.

Scores are exact (weighted token-wise interaction, both directions). Every clip is scored as long as there are few.
Beyond that all pooled vectors are scanned first, and only the clips nearest to the query, the shortlist, are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.index.background import background_of
from hbi_infer.index.clip_tokens import VideoTokens
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import ClipIds, StoredClip
from hbi_infer.model.encoder import BATCH_CLIPS
from hbi_infer.model.familiarity import familiarity_of
from hbi_infer.options import EVERYTHING, Searching
from hbi_infer.tasks.duplicates import Duplicates
from hbi_infer.tasks.query import Query
from hbi_infer.tasks.texts import EncodedTexts, encode_texts
from hbi_infer.tasks.word_map import content_shares
from hbi_infer.tokens.background import Background
from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.familiarity import Familiarity, unfamiliar
from hbi_infer.tokens.levels import Levels, LevelTokens, some, unit
from hbi_infer.tokens.similarity import ClipScorer, top

EXACT_BYTES = 512 * 2**20
"""Size of the float32 tokens up to which every clip is scored: 30,000 clips of 17 tokens of width 256."""

SAMPLE_CLIPS = 2000
"""Number of clips whose scores tell the scale of a query, where not every clip is scored."""

CLIPS_AT_A_TIME = 64
"""Number of clips that are read at a time, best first, until there are enough results."""

SORTED_AT_FIRST = 4 * CLIPS_AT_A_TIME
"""Number of the best clips that are put in order before all are."""

NUM_BEST_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A clip that is folded into a result, because it shows the same.

    Attributes:
        path: Path of the video.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
    """

    path: Path
    start_seconds: float
    end_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path)}


@dataclass(frozen=True, kw_only=True)
class Match:
    """One result.

    Attributes:
        rank: Place in the order of results, from 1.
        score: Higher is better. Scores of one query and one model can be compared. Of joined texts it is the least of
            their standard scores; see `hbi_infer.tasks.query`.
        path: Path of the video.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        best_frame_seconds: Times of the frames that the query's words of content belong to by their interaction (that
            are nearest to a frame or a group of frames, if the query is a video), best first.
        video_seconds: Duration of the video, None when not known.
        copies: Clips of other videos that show the same, folded into this result.
        match: How unusual such a match is among the clips that were searched, from 0 to 1; see
            `hbi_infer.tokens.background`. Of joined texts it is that of the least unusual one; None if the query is a
            video.
        unfamiliar: Whether the clip is unlike all that the model was trained on, so that its score says little; see
            `hbi_infer.tokens.familiarity`. False if the bundle does not know.
    """

    rank: int
    score: float
    path: Path
    start_seconds: float
    end_seconds: float
    best_frame_seconds: tuple[float, ...]
    video_seconds: float | None
    copies: tuple[Copy, ...] = ()
    match: float | None = None
    unfamiliar: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        # Not `asdict`, which copies all that is in a field, field by field.
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return own | {
            "path": str(self.path),
            "best_frame_seconds": list(self.best_frame_seconds),
            "copies": [copy.to_json() for copy in self.copies],
        }


def search(index: FolderIndex, queries: EncodedTexts, options: Searching | None = None) -> list[list[Match]]:
    """Finds the clips that match each of B texts best.

    Args:
        index: The index to search.
        queries: B texts.
        options: How to search.

    Returns:
        For each query its matches, best first; equal scores in the order of indexing.

    Raises:
        BundleError: The options ask for reranking, and the bundle has no reconstruction.
        IndexStoreError: The index is damaged.
    """
    options = options or Searching()
    if options.rerank:
        index.encoder.bundle.require("rerank")
    finder = _Finder(index, options)
    unwanted = _unwanted(index, options)
    return [
        finder.find(
            Query([queries.item(row)], unwanted=unwanted, content=[content_shares(index.encoder, queries, row)])
        )
        for row in range(len(queries))
    ]


def search_all(index: FolderIndex, queries: EncodedTexts, options: Searching | None = None) -> list[Match]:
    """Finds the clips that match all of B texts.

    Args:
        index: The index to search.
        queries: B texts.
        options: How to search.

    Returns:
        The clips whose worst match is best, best first; see `hbi_infer.tasks.query`.

    Raises:
        InputError: The options ask for reranking, which takes a single text.
        IndexStoreError: The index is damaged.
    """
    options = options or Searching()
    if options.rerank:
        raise InputError(f"rerank is {options.rerank}, and {len(queries)} texts are joined: rerank one text at a time")
    wanted = [queries.item(row) for row in range(len(queries))]
    content = [content_shares(index.encoder, queries, row) for row in range(len(queries))]
    return _Finder(index, options).find(Query(wanted, joined=True, unwanted=_unwanted(index, options), content=content))


def like(index: FolderIndex, video: VideoTokens, options: Searching | None = None) -> list[Match]:
    """Finds the clips most like a video: each with the score of the video's clip that it is most like.

    Args:
        index: The index to search.
        video: The video, whose own clips are left out, or a picture, which is a clip of one frame.
        options: How to search.

    Raises:
        InputError: The options ask for reranking, which needs a text.
        IndexStoreError: The index is damaged.
    """
    options = options or Searching()
    if options.rerank:
        raise InputError(f"rerank is {options.rerank}, and the query is a video: only texts can be reranked")
    own_ids = index.store.clip_ids_of(video.indexed_path) if video.indexed_path else None
    query = Query([clip.levels for clip in video.clips], unwanted=_unwanted(index, options))
    return _Finder(index, options).find(query, without=own_ids, is_text=False)


def well_matched(matches: Sequence[Match], min_match: float) -> list[Match]:
    """Returns those of the results that match at least so well, or have no match, ranked anew."""
    kept = [match for match in matches if is_well_matched(match, min_match)]
    return [replace(match, rank=rank) for rank, match in enumerate(kept, start=1)]


def is_well_matched(match: Match, min_match: float) -> bool:
    """Returns whether a result matches at least so well, or has no match."""
    return match.match is None or match.match >= min_match


def _unwanted(index: FolderIndex, options: Searching) -> list[Levels]:
    """Encodes the texts that say what must not be there."""
    if not options.without:
        return []
    texts = encode_texts(index.encoder, options.without, "text of without")
    return [texts.item(row) for row in range(len(texts))]


@dataclass(frozen=True)
class _Scored:
    """Clips with their scores: ids (N,) ascending, scores (N,), and the part of the query (N,) that gave the score."""

    ids: ClipIds
    scores: npt.NDArray[np.float32]
    parts: npt.NDArray[np.int64]

    def __getitem__(self, chosen: npt.NDArray[Any]) -> _Scored:
        return _Scored(self.ids[chosen], self.scores[chosen], self.parts[chosen])


@dataclass(frozen=True)
class _Chosen:
    """A clip that was found, its score, the part of the query that gave it, and the clips that show the same."""

    clip: StoredClip
    score: float
    part: int
    copies: list[StoredClip] = field(default_factory=list)
    match: float | None = None


class _Finder:
    """Searches one index, with one set of options, for one query after another."""

    def __init__(self, index: FolderIndex, options: Searching) -> None:
        self._index = index
        self._options = options
        self._num_chosen = max(options.rerank, options.top_k)
        self._shortlist = max(options.shortlist, self._num_chosen)
        exact_up_to = options.exact_up_to
        if exact_up_to is None:
            layout = index.store.layout
            exact_up_to = EXACT_BYTES // (layout.num_tokens * layout.width * 4)
        num_clips = index.store.num_clips()
        # None allows every clip. Listing them all takes longer than searching them.
        self._allowed = None if options.where == EVERYTHING else index.store.clip_ids(options.where)
        self._num_allowed = num_clips if self._allowed is None else len(self._allowed)
        self._has_every_clip = num_clips <= exact_up_to
        self._matrix: ClipScorer | None = None
        self._sample: ClipScorer | None = None
        if self._has_every_clip:
            self._matrix = index.resident_matrix()
        elif self._allowed is not None and len(self._allowed) <= exact_up_to:
            self._matrix = index.matrix(self._allowed)

    @cached_property
    def _background(self) -> Background | None:
        return background_of(self._index)

    @cached_property
    def _familiarity(self) -> Familiarity | None:
        return familiarity_of(self._index.encoder.bundle)

    def find(self, query: Query, *, without: ClipIds | None = None, is_text: bool = True) -> list[Match]:
        """Returns the best matches other than the clips `without`."""
        without = np.empty(0, np.int64) if without is None else without
        size = self._shortlist + len(without)
        while True:
            scored = self._score(query, size)
            if len(without):
                scored = scored[np.isin(scored.ids, without, invert=True)]
            chosen = self._choose(scored)
            # A few long videos may fill a shortlist of clips: look further for other videos.
            if self._matrix is not None or len(chosen) == self._num_chosen or size >= self._num_allowed:
                break
            size *= 4
        if is_text:
            chosen = self._matched(query, chosen)
        matches = self._matches(query, self._reranked(query, chosen) if self._options.rerank else chosen)
        return well_matched(matches, self._options.min_match)

    def _matched(self, query: Query, chosen: list[_Chosen]) -> list[_Chosen]:
        """Returns those of the clips that are still stored, each with its match."""
        background = self._background
        if background is None or not chosen:
            return chosen
        if query.needs_scale:
            ids, tokens = self._index.tokens(_ids(chosen))
            of_parts = [self._index.encoder.scoring.similarity(part, tokens)[0] for part in query.wanted]
            least = np.min(of_parts, axis=0) if query.joined else np.max(of_parts, axis=0)
            scores = dict(zip(ids.tolist(), least.tolist(), strict=True))
        else:
            scores = {one.clip.clip_id: one.score for one in chosen}
        return [
            replace(one, match=background.match(scores[one.clip.clip_id], self._num_allowed))
            for one in chosen
            if one.clip.clip_id in scores
        ]

    def _score(self, query: Query, size: int) -> _Scored:
        """Scores all allowed clips while they are few, else the `size` nearest candidates of each wanted part."""
        if self._matrix is not None:
            scored = self._score_all(self._matrix, query)
            return scored if self._allowed is None else scored[np.isin(scored.ids, self._allowed)]
        pooled = self._index.encoder.scoring.pooled
        near = [self._index.store.candidates(pooled(part)[0], self._options.where, size)[0] for part in query.wanted]
        return self._score_all(self._index.matrix(np.unique(np.concatenate(near))), query)

    def _score_all(self, matrix: ClipScorer, query: Query) -> _Scored:
        scores = _part_scores(matrix, query)
        sample = None
        if query.needs_scale:
            sample = scores if self._has_every_clip else _part_scores(self._clips_of_all(), query)
        return _Scored(matrix.ids, *query.combined(scores, sample))

    def _clips_of_all(self) -> ClipScorer:
        """Returns clips from all over the index, whichever the filter lets pass."""
        if self._sample is None:
            ids = self._index.store.clip_ids(EVERYTHING)
            step = -(-len(ids) // SAMPLE_CLIPS) or 1
            self._sample = self._index.matrix(ids[::step])
        return self._sample

    def _choose(self, scored: _Scored) -> list[_Chosen]:
        """Returns the best clips; one of each video unless all are wanted, duplicates folded into the better one."""
        most, how = self._num_chosen, self._options.dedupe
        duplicates = None if how == "off" else Duplicates(self._index, how, most)
        chosen: dict[int, _Chosen] = {}
        for batch in self._best_first(scored):
            if duplicates:
                duplicates.load([one.clip for one in batch])
            for one in batch:
                original = duplicates.original(one.clip) if duplicates else None
                if original is not None:
                    chosen[original.clip_id].copies.append(one.clip)
                elif len(chosen) < most:
                    chosen[one.clip.clip_id] = one
                else:
                    return list(chosen.values())
        return list(chosen.values())

    def _best_first(self, scored: _Scored) -> Iterator[list[_Chosen]]:
        """Yields batches of the clips that are still stored, best first; one of each video unless all are wanted."""
        seen: set[str] = set()
        for order in _best_at_first(scored.scores):
            some = scored[order]
            clips = {clip.clip_id: clip for clip in self._index.store.clips(some.ids.tolist())}
            batch = []
            for row, clip_id in enumerate(some.ids.tolist()):
                clip = clips.get(clip_id)  # None if it is gone since it was scored
                if clip is None or (clip.path in seen and not self._options.all_clips):
                    continue
                seen.add(clip.path)
                batch.append(_Chosen(clip, float(some.scores[row]), int(some.parts[row])))
            if batch:
                yield batch

    def _reranked(self, query: Query, chosen: list[_Chosen]) -> list[_Chosen]:
        """Orders the chosen clips by the scores of their reconstructed tokens; the query is one text."""
        ids, tokens = self._index.tokens(_ids(chosen))
        scores: dict[int, float] = {}
        for start in range(0, len(ids), BATCH_CLIPS):
            part = slice(start, start + BATCH_CLIPS)
            found = self._index.encoder.rerank(query.wanted[0], some(tokens, part))
            scores |= dict(zip(ids[part].tolist(), found.tolist(), strict=True))
        kept = [replace(one, score=scores[one.clip.clip_id]) for one in chosen if one.clip.clip_id in scores]
        return sorted(kept, key=lambda one: -one.score)[: self._options.top_k]

    def _matches(self, query: Query, chosen: Sequence[_Chosen]) -> list[Match]:
        ids, tokens = self._index.tokens(_ids(chosen))
        frames = self._best_frames(query, chosen, ids, tokens)
        strange = set(ids[unfamiliar(self._familiarity, tokens)].tolist())
        return [
            Match(
                rank=rank,
                score=one.score,
                best_frame_seconds=frames.get(one.clip.clip_id, ()),
                video_seconds=one.clip.video_seconds,
                copies=tuple(Copy(**self._place(copy)) for copy in one.copies),
                match=one.match,
                unfamiliar=one.clip.clip_id in strange,
                **self._place(one.clip),
            )
            for rank, one in enumerate(chosen, start=1)
        ]

    def _best_frames(
        self, query: Query, chosen: Sequence[_Chosen], ids: ClipIds, tokens: Levels
    ) -> dict[int, tuple[float, ...]]:
        """Returns for each of the chosen clips the times of the frames that belong most to what it is shown for.

        The first level, which has a token for each frame, is asked: of a text for the interaction of its words of
        content, of a video for the nearest of its frames.

        Args:
            query: The query.
            chosen: Clips that were found.
            ids: (B,) ids, ascending, of those that are still stored.
            tokens: Their tokens, a batch of B.
        """
        name, level = next(iter(tokens.items()))
        values_of = cache(partial(self._values_of_frames, query, name, level))
        found: dict[int, tuple[float, ...]] = {}
        for one in chosen:
            row = int(np.searchsorted(ids, one.clip.clip_id))
            seconds = one.clip.frame_seconds
            if row == len(ids) or ids[row] != one.clip.clip_id or level.weights.shape[1] != len(seconds):
                continue
            values = np.sum([values_of(number)[row] for number in query.shown_for(one.part)], axis=0)
            shown = np.flatnonzero((level.weights[row] > 0) & np.isfinite(seconds))
            best = shown[top(values[shown], NUM_BEST_FRAMES)]
            found[one.clip.clip_id] = tuple(seconds[best].tolist())
        return found

    def _values_of_frames(
        self, query: Query, name: str, level: LevelTokens, number: int
    ) -> npt.NDArray[np.floating[Any]]:
        """Computes what each frame (B, V) of B clips is worth to a wanted part; all clips at once, which is quicker."""
        part = query.wanted[number][name]
        real = part.weights[0] > 0
        # (T, D) @ (B, D, V) -> (B, T, V)
        cosines = unit(part.tokens[0, real]) @ unit(level.tokens).transpose(0, 2, 1)
        if not query.content:
            nearest: npt.NDArray[np.floating[Any]] = cosines.max(axis=1)
            return nearest
        weights = np.broadcast_to(part.weights[0, real].astype(np.float32), cosines.shape[:2])
        directions = self._index.encoder.scoring.directions
        interaction = banzhaf_interaction(
            cosines, weights, level.weights, video_mask=level.weights > 0, directions=directions
        )
        values: npt.NDArray[np.floating[Any]] = np.einsum("t,btv->bv", query.content[number], interaction)
        return values

    def _place(self, clip: StoredClip) -> dict[str, Any]:
        return {
            "path": self._index.folder / clip.path,
            "start_seconds": clip.start_seconds,
            "end_seconds": clip.end_seconds,
        }


def _ids(chosen: Sequence[_Chosen]) -> ClipIds:
    return np.array([one.clip.clip_id for one in chosen], np.int64)


def _part_scores(matrix: ClipScorer, query: Query) -> npt.NDArray[np.float32]:
    """Computes the scores (P, N) of each part of a query with N clips."""
    # One by one: a product for several would round by their order.
    return np.concatenate([matrix.score_each([part]) for part in query.parts])


def _best_at_first(scores: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.int64]]:
    """Yields the positions of scores (N,), best first, `CLIPS_AT_A_TIME` together; of equal ones the first."""
    # The first few are mostly enough, and found without ordering all.
    order = top(scores, SORTED_AT_FIRST)
    for start in range(0, len(scores), CLIPS_AT_A_TIME):
        if start == SORTED_AT_FIRST:
            order = top(scores, len(scores))
        yield order[start : start + CLIPS_AT_A_TIME]
