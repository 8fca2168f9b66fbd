"""Captions in Python, the files that hold them, and what an interrupted run leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError
from hbi_infer.index.clip_tokens import clips_of_index
from hbi_infer.model.encoder import BATCH_CLIPS
from hbi_infer.options import Decoding, Filter
from hbi_infer.tasks.caption import caption_clips
from tests.builders.tiny_bundle import write_tiny_bundle, write_video
from tests.builders.unfamiliar import write_bundle_without_red
from tests.builders.video_files import spoil

TEXTS = ["a green video", "a blue video", "a red video"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "caption"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "a.mp4", "green", "blue")
    write_video(folder / "sub" / "b.mkv", "red", seconds_each=1.0)
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, model: HBI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index.open(folder, model, location=tmp_path_factory.mktemp("index") / "i.sqlite") as index:
        index.update(workers=1)
        yield index


def test_a_caption_for_each_clip(model: HBI, folder: Path) -> None:
    captions = model.caption(folder / "a.mp4")
    assert [(c.text, c.clip, c.start_seconds, c.end_seconds) for c in captions] == [
        ("a green video", 1, 0.0, 2.0),
        ("a blue video", 2, 2.0, 4.0),
    ]
    assert {c.path for c in captions} == {folder / "a.mp4"}
    assert all(c.is_complete and -0.1 < c.log_probability < 0 for c in captions)
    short = model.caption(folder / "a.mp4", Decoding(max_tokens=2, beam_size=1))
    assert [(c.text, c.is_complete) for c in short] == [("a green", False), ("a blue", False)]
    assert json.loads(json.dumps(captions[0].to_json()))["path"] == str(folder / "a.mp4")


def test_a_folder_out_of_the_index_alone(model: HBI, folder: Path, index: Index) -> None:
    captions = index.caption()
    assert iter(captions) is captions
    found = list(captions)
    assert [c.text for c in found] == TEXTS
    assert [(c.path, c.clip) for c in found] == [
        (folder / "a.mp4", 1),
        (folder / "a.mp4", 2),
        (folder / "sub" / "b.mkv", 1),
    ]
    assert [c.text for c in index.caption(where=Filter(folder="sub"))] == ["a red video"]
    assert [c.text for c in model.caption(folder / "sub" / "b.mkv", videos=folder, location=index.store.path)] == [
        "a red video"
    ]


def test_an_indexed_video_is_not_decoded(model: HBI, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    location = tmp_path / "i.sqlite"
    with Index.open(video.parent, model, location=location) as index:
        index.update(workers=1)
        spoil(video)
        assert [c.text for c in index.caption()] == ["a red video"]
    assert [c.text for c in model.caption(video, videos=video.parent, location=location)] == ["a red video"]


def test_clips_of_different_videos_share_a_batch(model: HBI, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = model.write_captions

    def counting(levels: Any, options: Decoding | None = None) -> Any:
        sizes.append(len(levels["entity"]))
        return write(levels, options)

    monkeypatch.setattr(model, "write_captions", counting)
    assert [c.text for c in index.caption()] == TEXTS
    assert sizes == [3]
    monkeypatch.setattr("hbi_infer.tasks.caption.BATCH_CLIPS", 2)
    assert [c.text for c in index.caption()] == TEXTS
    assert sizes == [3, 2, 1]
    assert BATCH_CLIPS > 3


def test_what_is_known_is_not_written_again(model: HBI, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of which all is known is not computed; of one that is half known, the known half stays as it is."""
    clips = clips_of_index(index)
    monkeypatch.setattr("hbi_infer.tasks.caption.BATCH_CLIPS", 2)
    written = dict(caption_clips(model, clips))
    first, second, third = written
    marked = {clip: replace(caption, text="as before") for clip, caption in written.items()}
    half = dict(caption_clips(model, clips, known={first: marked[first]}))
    assert [c.text for c in half.values()] == ["as before", *TEXTS[1:]]
    assert half[second] == written[second], "to the last bit"
    model_fails = replace(clips, read=lambda part: pytest.fail("nothing needs to be read"))
    assert dict(caption_clips(model, model_fails, known=marked)) == marked
    stale = {replace(third, file_version="of before"): marked[third]}
    assert list(caption_clips(model, clips, known=stale))[-1][1].text == "a red video"


def test_a_bundle_that_writes_no_captions(folder: Path, tmp_path: Path) -> None:
    model = HBI.load(write_tiny_bundle(tmp_path / "tiny"), device="cpu", threads=1)
    with pytest.raises(
        BundleError, match=r"does not do caption, only retrieve: train a model with 'hbi-train caption'"
    ):
        model.caption(folder / "a.mp4")


def test_captions_of_clips_unlike_those_of_the_training_say_so(folder: Path, tmp_path: Path) -> None:
    model = HBI.load(write_bundle_without_red(tmp_path / "bundle", "caption"), device="cpu", threads=1)
    red, green = model.caption(folder / "sub" / "b.mkv"), model.caption(folder / "a.mp4")
    assert [caption.unfamiliar for caption in (*red, *green)] == [True, False, False]
    assert red[0].to_json()["unfamiliar"] is True
