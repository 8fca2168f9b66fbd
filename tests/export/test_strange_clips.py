"""Strange clips: the same for the same seed, all different, of the sampling's size, and busy as photographs are."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_export.strange_clips import strange_clips
from hbi_infer.options import FrameSampling


@pytest.mark.parametrize("size", [16, 48])
def test_clips_have_the_size_of_the_sampling(size: int) -> None:
    clips = list(strange_clips(FrameSampling(image_size=size, max_frames=3), 6))
    assert [(clip.shape, clip.dtype) for clip in clips] == [((3, size, size, 3), np.dtype(np.uint8))] * 6
    assert len({clip.tobytes() for clip in clips}) == 6


def test_seed_decides() -> None:
    sampling = FrameSampling(image_size=16, max_frames=2)
    first, again, other = (np.stack(list(strange_clips(sampling, 4, seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first[:2], np.stack(list(strange_clips(sampling, 2))))


def test_pictures_are_neither_flat_nor_noise() -> None:
    clips = np.stack(list(strange_clips(FrameSampling(image_size=48, max_frames=2), 40))).astype(float)
    assert np.median(clips.std(axis=(2, 3, 4))) > 15
    steps = np.abs(np.diff(clips, axis=3)).mean(axis=(1, 2, 3, 4)) / clips.std(axis=(1, 2, 3, 4))
    assert np.median(steps) < 0.7, "neighbours are alike: of white noise it is above 1.1"
