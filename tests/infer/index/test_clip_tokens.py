"""The tokens of a video, from the index or from the file, and the clips of a whole index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError, InputError, VideoError
from hbi_infer.index.clip_tokens import IndexedFileChangedWarning, clips_of_index, clips_of_video, video_tokens
from hbi_infer.index.store import FileVersion
from hbi_infer.options import Filter
from tests.builders.tiny_bundle import write_video
from tests.builders.video_files import spoil


def test_tokens_come_from_the_index_while_the_file_is_the_one_indexed(index: Index, model: HBI, folder: Path) -> None:
    index.update(workers=1)
    video = folder / "red.mp4"
    stored, decoded = video_tokens(model, video, index), video_tokens(model, video)
    assert (stored.source, decoded.source) == ("index", "video")
    assert (stored.indexed_path, decoded.indexed_path) == ("red.mp4", None)
    assert stored.version == decoded.version == FileVersion.of(video)
    for one, other in zip(stored.clips, decoded.clips, strict=True):
        assert (one.start_seconds, one.end_seconds) == (other.start_seconds, other.end_seconds)
        for name, level in one.levels.items():
            np.testing.assert_allclose(level.tokens, other.levels[name].tokens, rtol=2e-3, atol=2e-3)
    write_video(video, "blue", "blue")
    changed = video_tokens(model, video, index)
    assert (changed.source, changed.indexed_path, len(changed.clips)) == ("video", "red.mp4", 2)
    spoil(video)
    with pytest.warns(IndexedFileChangedWarning, match=r"red\.mp4 .* has changed since it was indexed"):
        assert video_tokens(model, video, index).source == "index"
    video.unlink()
    assert video_tokens(model, video, index).source == "index"


def test_a_file_that_nobody_has(index: Index, model: HBI, folder: Path) -> None:
    for given in (None, index):
        with pytest.raises(InputError, match=r"there is no file .*none\.mp4, and no index that holds it"):
            video_tokens(model, folder / "none.mp4", given)
    with pytest.raises(VideoError, match=r"damaged\.mp4 .*: give a video that can be played"):
        video_tokens(model, folder / "damaged.mp4", index)


@pytest.mark.parametrize("statement", ["DELETE FROM tokens", "UPDATE tokens SET record = zeroblob(length(record))"])
def test_damage_is_told_by_every_way_in(index: Index, model: HBI, folder: Path, statement: str) -> None:
    index.update(workers=1)
    with index.store._transaction() as execute:
        execute(statement)
    with pytest.raises(IndexStoreError, match=r"is damaged \(the tokens of red\.mp4 make no sense\)"):
        video_tokens(model, folder / "red.mp4", index)
    if "UPDATE" in statement:
        with pytest.raises(IndexStoreError, match=r"is damaged \(tokens that make no sense\)"):
            list(clips_of_index(index).batches(100))


def test_places_of_the_clips_of_an_index_and_of_a_video(index: Index, model: HBI, folder: Path) -> None:
    index.update(workers=1)
    clips = clips_of_index(index, Filter(folder="sub"))
    (batch,) = clips.batches(100)
    assert [place.clip for place in clips.places] == [1, 2]
    assert batch.places == clips.places
    alone = clips_of_video(video_tokens(model, clips.places[0].path))
    assert (alone.source, clips.source) == ("video", "index")
    assert alone.places == clips.places
    assert [len(part.places) for part in alone.batches(1)] == [1, 1]
