"""Searching an index: texts to clips, and a video to clips.

Scores are exact (weighted token-wise interaction, both directions). Every clip is scored as long as there are few.
Beyond that all pooled vectors are scanned first, and only the clips nearest to the query, the shortlist, are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.index.clip_tokens import VideoTokens
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import ClipIds, StoredClip
from hbi_infer.model.encoder import BATCH_CLIPS
from hbi_infer.options import EVERYTHING, Searching
from hbi_infer.tasks.texts import EncodedTexts
from hbi_infer.tokens.levels import Levels, item, some
from hbi_infer.tokens.similarity import ClipMatrix, best_cosines, top

EXACT_BYTES = 512 * 2**20
"""Size of the float32 tokens up to which every clip is scored: 30,000 clips of 17 tokens of width 256."""

NUM_BEST_FRAMES = 3


@dataclass(frozen=True, kw_only=True)
class Match:
    """One result.

    Attributes:
        rank: Place in the order of results, from 1.
        score: Higher is better. Scores of one query and one model can be compared.
        path: Path of the video.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
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
        """Returns a value that `json.dumps` takes."""
        return asdict(self) | {"path": str(self.path), "best_frame_seconds": list(self.best_frame_seconds)}


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
    return [finder.find([queries.item(row)]) for row in range(len(queries))]


def like(index: FolderIndex, video: VideoTokens, options: Searching | None = None) -> list[Match]:
    """Finds the clips most like a video. A clip's score is that of the clip of `video` which it is most like.

    Args:
        index: The index to search.
        video: Clips of any video; if the index knows the video, its own clips are not among the results.
        options: How to search.

    Raises:
        InputError: The options ask for reranking, which needs a text.
        IndexStoreError: The index is damaged.
    """
    options = options or Searching()
    if options.rerank:
        raise InputError(f"rerank is {options.rerank}, and the query is a video: only texts can be reranked")
    own_ids = index.store.clip_ids_of(video.indexed_path) if video.indexed_path else None
    return _Finder(index, options).find([clip.levels for clip in video.clips], without=own_ids)


@dataclass(frozen=True)
class _Scored:
    """Clips with their scores: ids (N,) ascending, scores (N,), and the part of the query (N,) that gave the score."""

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
        self._matrix: ClipMatrix | None = None
        if num_clips <= exact_up_to:
            self._matrix = index.resident_matrix()
        elif self._allowed is not None and len(self._allowed) <= exact_up_to:
            self._matrix = index.matrix(self._allowed)

    def find(self, query: Sequence[Levels], *, without: ClipIds | None = None) -> list[Match]:
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
                return self._matches(query, self._reranked(query, chosen) if self._options.rerank else chosen)
            size *= 4

    def _score(self, query: Sequence[Levels], size: int) -> _Scored:
        """Scores all allowed clips while they are few, else the `size` nearest candidates of each part."""
        if self._matrix is not None:
            scored = _score_all(self._matrix, query)
            return scored if self._allowed is None else scored[np.isin(scored.ids, self._allowed)]
        pooled = self._index.encoder.scoring.pooled
        near = [self._index.store.candidates(pooled(part)[0], self._options.where, size)[0] for part in query]
        return _score_all(self._index.matrix(np.unique(np.concatenate(near))), query)

    def _choose(self, scored: _Scored) -> list[_Chosen]:
        """Returns the best clips with their score and part of the query; one of each video unless all are wanted."""
        chosen: list[_Chosen] = []
        seen: set[str] = set()
        order = top(scored.scores, len(scored.scores))
        step = 4 * self._num_chosen  # mostly the first few are enough
        for start in range(0, len(order), step):
            batch = scored[order[start : start + step]]
            clips = {clip.clip_id: clip for clip in self._index.store.clips(batch.ids.tolist())}
            for row, clip_id in enumerate(batch.ids.tolist()):
                clip = clips.get(clip_id)  # None if it is gone since it was scored
                if clip is None or (clip.path in seen and not self._options.all_clips):
                    continue
                seen.add(clip.path)
                chosen.append((clip, float(batch.scores[row]), int(batch.parts[row])))
                if len(chosen) == self._num_chosen:
                    return chosen
        return chosen

    def _reranked(self, query: Sequence[Levels], chosen: list[_Chosen]) -> list[_Chosen]:
        """Orders the chosen clips by the scores of their reconstructed tokens; the query is one text."""
        ids, tokens = self._index.tokens(_ids(chosen))
        scores: dict[int, float] = {}
        for start in range(0, len(ids), BATCH_CLIPS):
            part = slice(start, start + BATCH_CLIPS)
            found = self._index.encoder.rerank(query[0], some(tokens, part))
            scores |= dict(zip(ids[part].tolist(), found.tolist(), strict=True))
        kept = [(clip, scores[clip.clip_id], part) for clip, _, part in chosen if clip.clip_id in scores]
        return sorted(kept, key=lambda one: -one[1])[: self._options.top_k]

    def _matches(self, query: Sequence[Levels], chosen: Sequence[_Chosen]) -> list[Match]:
        ids, tokens = self._index.tokens(_ids(chosen))
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


def _ids(chosen: Sequence[_Chosen]) -> ClipIds:
    return np.array([clip.clip_id for clip, _, _ in chosen], np.int64)


def _score_all(matrix: ClipMatrix, query: Sequence[Levels]) -> _Scored:
    # (parts, N)
    scores = np.stack([matrix.score(part) for part in query])
    return _Scored(matrix.ids, scores.max(axis=0), scores.argmax(axis=0))


def _best_frames(query: Levels, tokens: Levels, clip: StoredClip) -> tuple[float, ...]:
    """Returns the times of the frames nearest to the query at the first level, which has a token for each frame."""
    name, level = next(iter(tokens.items()))
    if level.weights.shape[1] != len(clip.frame_seconds):
        return ()
    cosines = best_cosines(query[name], level)
    real = np.flatnonzero((level.weights[0] > 0) & np.isfinite(clip.frame_seconds))
    best = real[top(cosines[real], NUM_BEST_FRAMES)]
    return tuple(float(seconds) for seconds in clip.frame_seconds[best])
