"""Encoding frames once and clips by their frames: which frames are encoded, and that the rest is as with one graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbi_engines.engine import Arrays
from hbi_infer.errors import EngineError
from hbi_infer.model.video_encoder import TwoGraphs, differs_from_the_one_before, frame_features, open_video_encoder


class Recorder:
    """A graph that keeps what it was given; the feature of a frame is its mean colour."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        if "features" in inputs:
            return dict(inputs)
        self.batches.append(len(inputs["frames"]))
        return {"features": inputs["frames"].mean(axis=(1, 2), dtype=np.float32)}


def clips_of(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Frames (B, F, 2, 2, 3), each of one value."""
    return np.broadcast_to(values[:, :, None, None, None], (*values.shape, 2, 2, 3)).copy()


@given(seed=st.integers(0, 10_000), batch_frames=st.integers(1, 9))
def test_every_real_frame_has_its_own_feature_and_is_encoded_at_most_once(seed: int, batch_frames: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, (rng.integers(1, 5), 6), dtype=np.uint8)  # few values: many frames are alike
    mask = rng.random(values.shape) < 0.7
    encoder = Recorder()
    features = frame_features(encoder.run, clips_of(values), mask, batch_frames)
    assert np.array_equal(features, np.where(mask, values, 0)[..., None].repeat(3, -1))
    different = 0
    for row, real in zip(values, mask, strict=True):
        shown = row[real]
        different += len(shown) and 1 + int((shown[1:] != shown[:-1]).sum())
    assert sum(encoder.batches) == max(different, 1)  # one tells the width where there is none
    assert max(encoder.batches) <= batch_frames
    assert max(encoder.batches) - min(encoder.batches) <= 1


def test_a_frame_is_compared_with_the_real_one_before_it() -> None:
    values = np.array([[5, 9, 5, 5, 7, 7]], np.uint8)
    mask = np.array([[True, False, True, True, False, True]])
    new = differs_from_the_one_before(clips_of(values), mask)
    assert new.tolist() == [[True, False, False, False, False, True]]
    other_clip = np.array([[5], [5]], np.uint8)
    assert differs_from_the_one_before(clips_of(other_clip), np.ones((2, 1), bool)).all()


def test_the_graphs_of_a_bundle_are_opened_by_their_names() -> None:
    opened: list[str] = []

    def open_graph(name: str) -> Recorder:
        opened.append(name)
        return Recorder()

    frames, mask = clips_of(np.array([[1, 2]], np.uint8)), np.ones((1, 2), bool)
    made = open_video_encoder({"frame_encoder", "clip_encoder", "text_encoder"}, open_graph, 8).run(frames, mask)
    assert opened == ["frame_encoder", "clip_encoder"]
    assert made["features"][0, :, 0].tolist() == [1, 2]
    open_video_encoder({"video_encoder"}, open_graph, 8)
    assert opened[2:] == ["video_encoder"]


@pytest.mark.parametrize("mask", [np.ones((1, 3), bool), np.ones(1, bool), np.ones((1, 2))])
def test_a_mask_of_another_shape_or_type_is_refused(mask: npt.NDArray[Any]) -> None:
    graph = Recorder()
    with pytest.raises(EngineError, match=r"they must be \(B, F, H, W, 3\) and \(B, F\) bool"):
        TwoGraphs(graph, graph, 8).run(clips_of(np.array([[1, 2]], np.uint8)), mask)
