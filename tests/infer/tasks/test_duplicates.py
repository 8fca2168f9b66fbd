"""Which clips show the same: copies, and other encodings; not other moments, and not what is only alike."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.options import Dedupe
from hbi_infer.tasks.duplicates import Duplicates
from tests.paths import ROOT

SAMPLE = "red-cross-moves-up-while-yellow-star-shakes.webm"
OTHER = "small-red-circle-moves-left-then-blue-square-blinks.mp4"
REVERSED = "blue-square-blinks-then-small-red-circle-moves-left.mp4"


def encode_again(source: Path, target: Path, *, most_frames: int = 1000) -> None:
    """Another codec at a low rate, and another size."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 144, 144, "yuv420p", 200_000
        for number, frame in enumerate(old.decode(video=0)):
            if number < most_frames:
                scaled = frame.reformat(144, 144, "yuv420p")
                scaled.pts, scaled.time_base, scaled.pict_type = (
                    number,
                    Fraction(1, 12),
                    av.video.frame.PictureType.NONE,
                )
                new.mux(stream.encode(scaled))
        new.mux(stream.encode(None))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    root = tmp_path_factory.mktemp("duplicates")
    folder = root / "videos"
    folder.mkdir()
    for name in (SAMPLE, OTHER, REVERSED):
        shutil.copyfile(ROOT / "samples" / name, folder / name)
    shutil.copyfile(folder / SAMPLE, folder / "copy.webm")
    encode_again(folder / SAMPLE, folder / "encoded.avi")
    encode_again(folder / SAMPLE, folder / "short.avi", most_frames=24)
    with Index.open(folder, HBI.load(device="cpu"), location=root / "index.sqlite") as index:
        index.update(workers=1)
        yield index


def repeats(index: Index, how: Dedupe, *names: str) -> list[str | None]:
    """The path that each video's clip repeats, given in this order."""
    duplicates = Duplicates(index, how, len(names))
    clips = [index.store.clips(index.store.clip_ids_of(name).tolist())[0] for name in names]
    originals = []
    for clip in clips:
        duplicates.load([clip])
        original = duplicates.original(clip)
        originals.append(original.path if original else None)
    return originals


def test_a_copy_is_the_same_and_another_encoding_is_near(index: Index) -> None:
    names = (SAMPLE, "copy.webm", "encoded.avi", OTHER, "short.avi")
    assert repeats(index, "same", *names) == [None, SAMPLE, None, None, None]
    assert repeats(index, "near", *names) == [None, SAMPLE, SAMPLE, None, None]
    assert repeats(index, "near", *reversed(names)) == [None, None, None, "encoded.avi", "encoded.avi"]


def test_the_same_things_in_another_order_are_something_else(index: Index) -> None:
    assert repeats(index, "near", OTHER, REVERSED) == [None, None]


def test_a_clip_that_is_gone_repeats_nothing(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(index.folder, folder)
    with Index.open(folder, index.encoder, location=tmp_path / "index.sqlite") as other:
        other.update(workers=1)
        clips = [other.store.clips(other.store.clip_ids_of(name).tolist())[0] for name in (SAMPLE, "copy.webm")]
        other.store.remove(["copy.webm"])
        duplicates = Duplicates(other, "same", 2)
        duplicates.load(clips)
        assert [duplicates.original(clip) for clip in clips] == [None, None]
