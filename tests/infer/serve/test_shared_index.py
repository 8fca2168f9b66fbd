"""Queries of several threads, scored together and each as if alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.api import HBI
from hbi_infer.serve.shared_index import MOST_QUERIES, SharedIndex, SharedScorer
from hbi_infer.tokens.levels import Levels, LevelTokens

QUERIES = [{"a": LevelTokens(np.full((1, 1, 1), number, np.float32), np.ones((1, 1)))} for number in range(40)]


class Slow:
    """Scores a query as its own number, once it may; counts the queries of each pass."""

    ids = np.arange(3)

    def __init__(self) -> None:
        self.go = threading.Event()
        self.passes: list[int] = []
        self.fails = False

    def score_each(self, queries: Sequence[Levels]) -> npt.NDArray[np.float32]:
        assert self.go.wait(10)
        self.passes.append(len(queries))
        if self.fails:
            self.fails = False
            raise MemoryError
        return np.array([np.full(3, query["a"].tokens[0, 0, 0]) for query in queries])


def test_what_waits_is_scored_together() -> None:
    slow = Slow()
    scorer = SharedScorer(slow)
    with ThreadPoolExecutor(len(QUERIES)) as pool:
        made = [pool.submit(scorer.score_each, QUERIES[start : start + 2]) for start in range(0, len(QUERIES), 2)]
        slow.go.set()
        for number, scores in enumerate(made):
            np.testing.assert_array_equal(scores.result(), [[2 * number] * 3, [2 * number + 1] * 3])
    assert sum(slow.passes) == len(QUERIES)
    assert max(slow.passes) <= MOST_QUERIES
    assert len(slow.passes) < len(QUERIES) // 2, "some shared a pass"


def test_a_failure_costs_the_others_nothing() -> None:
    slow = Slow()
    slow.fails = True
    scorer = SharedScorer(slow)
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(scorer.score_each, [query]) for query in QUERIES[:4]]
        slow.go.set()
        failed = [each.exception() for each in made]
    assert [type(error) for error in failed if error] == [MemoryError]
    assert len([error for error in failed if error is None]) == 3


def test_an_index_is_shared_until_it_changes(library: Path, tmp_path: Path) -> None:
    model = HBI.load(library / "bundle", device="cpu", threads=1)
    with SharedIndex.open(library / "videos", model, location=tmp_path / "index.sqlite") as index:
        index.update(workers=1)
        first = index.resident_matrix()
        assert index.resident_matrix() is first
        query = model.encode_text(["red"])
        assert isinstance(first, SharedScorer)
        np.testing.assert_array_equal(first.score_each([query]), first.matrix.score_each([query]))
        with pytest.raises(AssertionError):
            np.testing.assert_array_equal(first.score_each([query]), 0)
        index.store.remove(["red.mp4"])
        assert len(index.resident_matrix().ids) == len(first.ids) - 1
