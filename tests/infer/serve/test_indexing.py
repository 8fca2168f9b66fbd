"""Updates of an index that are started, watched and stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_infer.api import HBI
from hbi_infer.index.update import IndexProgress
from hbi_infer.serve.indexing import Indexer
from hbi_infer.serve.library import Collection
from tests.builders.service import write_library


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = write_library(tmp_path)
    return Collection(library / "videos", HBI.load(library / "bundle", device="cpu", threads=1))


def test_an_update_fills_the_index_and_counts(collection: Collection) -> None:
    indexer = Indexer(collection, 1, str)
    indexer.start()
    indexer.wait(60)
    state = indexer.state
    assert (state.running, state.done, state.total, state.failed, state.clips, state.error) == (False, 4, 4, 1, 4, "")
    assert len(collection.videos()) == 3
    collection.close()


def test_an_update_that_is_stopped_keeps_what_it_has(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    indexer = Indexer(collection, 1, str)
    told = indexer._on_progress

    def stop_at_two(progress: IndexProgress) -> None:
        if progress.videos_done == 2:
            indexer.stop()
        told(progress)

    monkeypatch.setattr(indexer, "_on_progress", stop_at_two)
    indexer.start()
    indexer.start()  # one at a time
    indexer.wait(60)
    assert (indexer.state.running, "stopped" in indexer.state.error) == (False, True)
    kept = len(collection.index.store.ledger())
    assert kept == 2
    monkeypatch.undo()
    again = Indexer(collection, 1, str)
    again.start()
    again.wait(60)
    assert (again.state.total, len(collection.index.store.ledger())) == (2, 4)
    collection.close()


def test_an_update_that_cannot_run_says_why(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "videos").rename(tmp_path / "gone")
    indexer = Indexer(collection, 1, lambda message: message.replace(str(tmp_path), "HERE"))
    indexer.start()
    indexer.wait(60)
    assert "cannot read the folder HERE" in indexer.state.error
    collection.close()
