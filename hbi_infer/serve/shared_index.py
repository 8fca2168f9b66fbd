"""An index whose clips are scored against the queries of several threads together.

Scoring reads the tokens of all clips from memory, which takes longer than computing with them: queries that come at the
same time share one pass.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_infer.api import Index
from hbi_infer.tokens.levels import Levels
from hbi_infer.tokens.similarity import ClipScorer

MOST_QUERIES = 8
"""Number of queries in a pass; more do not fit in a processor's cache, and each waits for all."""


class SharedIndex(Index):
    """An index that many threads search at a time. Use `open`."""

    _shared: SharedScorer | None = None

    def resident_matrix(self) -> ClipScorer:
        """Returns the matrix of every clip, which stays in memory until the index changes."""
        matrix = super().resident_matrix()
        with self._resident_lock:
            if self._shared is None or self._shared.matrix is not matrix:
                self._shared = SharedScorer(matrix)
            return self._shared


@dataclass(eq=False)
class _Waiting:
    queries: Sequence[Levels]
    scores: npt.NDArray[np.float32] | None = None


class SharedScorer:
    """Scores the queries of all threads that wait, in one pass after the other.

    Args:
        matrix: The clips.

    Attributes:
        matrix: The clips.
    """

    def __init__(self, matrix: ClipScorer) -> None:
        self.matrix = matrix
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Waiting] = []

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """(N,) the clips' ids, in the order of their scores."""
        return self.matrix.ids

    def score_each(self, queries: Sequence[Levels]) -> npt.NDArray[np.float32]:
        """Computes scores (B, N) float32 of B queries, each a batch of one, with every clip."""
        mine = _Waiting(queries)
        with self._lock:
            self._waiting.append(mine)
        with self._turn:  # whoever has it scores for others too; who comes after may find it done
            if mine.scores is None:
                self._score(self._taken(mine))
        assert mine.scores is not None
        return mine.scores

    def _taken(self, mine: _Waiting) -> list[_Waiting]:
        """Takes those out of the queue that are scored now: this thread's, and as many others as fit."""
        with self._lock:
            taken, num_queries = [mine], len(mine.queries)
            for each in self._waiting:
                if each is not mine and num_queries + len(each.queries) <= MOST_QUERIES:
                    taken.append(each)
                    num_queries += len(each.queries)
            self._waiting = [each for each in self._waiting if each not in taken]
        return taken

    def _score(self, taken: list[_Waiting]) -> None:
        scores = self.matrix.score_each([query for each in taken for query in each.queries])
        start = 0
        for each in taken:
            each.scores = scores[start : start + len(each.queries)]
            start += len(each.queries)
