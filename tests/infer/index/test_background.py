"""The background of an index: computed once, kept in the file, computed again when much has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.background import background_of
from hbi_infer.model.neutral_texts import neutral_tokens
from hbi_infer.options import EVERYTHING
from hbi_infer.tokens.background import Background
from tests.builders.tiny_bundle import write_tiny_bundle, write_video

COLOURS = ("red", "green", "blue")


class Counting(HBI):
    num_tokenized = 0

    def encode_tokens(self, batch):  # type: ignore[no-untyped-def]
        self.num_tokenized += len(batch.ids)
        return super().encode_tokens(batch)


@pytest.fixture
def model(tmp_path: Path) -> Counting:
    return Counting.load(write_tiny_bundle(tmp_path / "bundle"), device="cpu", threads=1)


@pytest.fixture
def index(tmp_path: Path, model: Counting) -> Iterator[Index]:
    for number in range(12):
        write_video(tmp_path / "videos" / f"{number:02}.mp4", COLOURS[number % 3], seconds_each=1.0)
    with Index.open(tmp_path / "videos", model, location=tmp_path / "i.sqlite") as index:
        index.update(workers=1)
        yield index


def test_background_is_of_the_scores_of_all_clips_while_they_are_few(index: Index) -> None:
    store, encoder = index.store, index.encoder
    _, clips = index.tokens(store.clip_ids(EVERYTHING))
    expected = Background.of(encoder.scoring.similarity(neutral_tokens(encoder), clips))
    found = background_of(index)
    assert found is not None
    assert found.num_clips == expected.num_clips == (1, 2, 4, 8, 12)
    np.testing.assert_allclose(found.means, expected.means, atol=1e-3)
    np.testing.assert_allclose(found.deviations, expected.deviations, atol=1e-3)


def test_it_is_computed_once_and_kept(index: Index, model: Counting, tmp_path: Path) -> None:
    first = background_of(index)
    texts = model.num_tokenized
    assert texts > 100
    assert background_of(index) == first
    with Index.open(tmp_path / "videos", model, location=tmp_path / "i.sqlite", read_only=True) as again:
        assert background_of(again) == first
    assert model.num_tokenized == texts


def test_it_is_computed_again_once_a_tenth_of_the_clips_has_changed(index: Index, model: Counting) -> None:
    background_of(index)
    texts = model.num_tokenized
    index.store.remove(["00.mp4"])  # 1 of 12
    background_of(index)
    assert model.num_tokenized == texts
    write_video(index.folder / "01.mp4", "green", "red", seconds_each=1.0)  # another one gone, and a new one
    index.update(workers=1)
    background_of(index)
    assert model.num_tokenized == 2 * texts


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"version": 0}', '{"version": 1, "clips": "x"}'])
def test_what_is_no_background_is_replaced(index: Index, kept: str) -> None:
    expected = background_of(index)
    index.store.keep_background(kept)
    assert background_of(index) == expected
    assert index.store.background() != kept


def test_nothing_is_written_to_an_index_that_is_only_read(index: Index, model: Counting, tmp_path: Path) -> None:
    index.close()
    with Index.open(tmp_path / "videos", model, location=tmp_path / "i.sqlite", read_only=True) as again:
        assert background_of(again) is not None
        assert again.store.background() is None
        with pytest.raises(IndexStoreError, match="opened only to be read"):
            again.store.keep_background("{}")


def test_an_empty_index_has_none(tmp_path: Path, model: Counting) -> None:
    (tmp_path / "videos").mkdir()
    with Index.open(tmp_path / "videos", model, location=tmp_path / "i.sqlite") as empty:
        assert background_of(empty) is None


def test_an_index_that_begins_anew_forgets_it(index: Index, model: Counting, tmp_path: Path) -> None:
    background_of(index)
    index.close()
    with Index.open(tmp_path / "videos", model, location=tmp_path / "i.sqlite", rebuild=True) as again:
        again.update(workers=1)
        assert again.store.background() is None
