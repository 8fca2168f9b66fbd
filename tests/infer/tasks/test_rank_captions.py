"""Sentences ranked for a video, out of an index and from the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import IndexStoreError, InputError, VideoError
from hbi_infer.index.clip_tokens import video_tokens
from hbi_infer.tokens.levels import LevelTokens
from tests.builders.tiny_bundle import write_tiny_bundle, write_video


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "red.mp4", "red")
    write_video(tmp_path / "videos" / "green_then_blue.mp4", "green", "blue")
    return tmp_path / "videos"


def test_captions_are_ranked_for_a_video(model: HBI, folder: Path) -> None:
    path = folder / "green_then_blue.mp4"
    captions = ["a red video", "a blue video", "green then red"]
    matches = model.rank_captions(path, captions)
    assert [match.rank for match in matches] == [1, 2, 3]
    assert matches[0].caption == "a blue video"
    assert matches[0].start_seconds == pytest.approx(2, abs=0.15)
    assert matches[-1].caption == "a red video"
    assert model.rank_captions(str(path), captions, top_k=1) == matches[:1]
    assert json.loads(json.dumps(matches[0].to_json()))["caption"] == "a blue video"


@pytest.mark.parametrize(
    ("captions", "top_k", "message"),
    [
        ([], None, "there is no caption: give at least one"),
        (["red", " "], None, "a caption is empty"),
        (["red"], 0, "top_k is 0"),
    ],
)
def test_captions_that_cannot_be_ranked(
    model: HBI, folder: Path, captions: list[str], top_k: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.rank_captions(folder / "red.mp4", captions, top_k=top_k)


def test_a_video_that_cannot_be_decoded(model: HBI, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"damaged\.mp4 .*: give a video that can be played"):
        model.rank_captions(path, ["red"])


def test_the_index_gives_the_tokens_while_the_file_is_the_one_indexed(model: HBI, folder: Path) -> None:
    video, location = folder / "red.mp4", folder.parent / "index.sqlite"
    with Index.open(folder, model, location=location) as index:
        index.update(workers=1)
        assert video_tokens(model, video, index).source == "index"
    where = {"videos": folder, "location": location}
    before = model.rank_captions(video, ["red", "blue"], **where)
    assert [match.caption for match in before] == ["red", "blue"]
    write_video(video, "blue", "blue")
    changed = model.rank_captions(video, ["red", "blue"], **where)
    assert changed == model.rank_captions(video, ["red", "blue"])
    assert [match.caption for match in changed] == ["blue", "red"]


class NotFinite(HBI):
    """A model whose video encoder gives numbers that are not finite."""

    def encode_video(self, frames: Any, mask: Any) -> dict[str, LevelTokens]:
        levels = super().encode_video(frames, mask)
        return {name: LevelTokens(level.tokens * np.nan, level.weights, level.slots) for name, level in levels.items()}


def test_numbers_that_are_not_finite_are_no_scores(model: HBI, folder: Path) -> None:
    broken = NotFinite(model.bundle, device="cpu", threads=1)
    with pytest.raises(VideoError, match=r"red\.mp4 makes the model give numbers that are not finite"):
        broken.rank_captions(folder / "red.mp4", ["red", "blue"])


def test_damaged_tokens_in_the_index_are_no_scores(model: HBI, folder: Path) -> None:
    location = folder.parent / "index.sqlite"
    with Index.open(folder, model, location=location) as index:
        index.update(workers=1)
        with index.store._transaction() as execute:
            execute("UPDATE tokens SET record = zeroblob(length(record))")
    with pytest.raises(IndexStoreError, match=r"the tokens of red\.mp4 make no sense"):
        model.rank_captions(folder / "red.mp4", ["red"], videos=folder, location=location)
