"""Layers of neighbouring frames: how far they see, what is padding to them, and that they tell before from after."""

from __future__ import annotations

import pytest
import torch

from hbi_training.model.neighbour_mixer import NeighbourMixer


@pytest.mark.parametrize(("layers", "window"), [(1, 1), (2, 1), (2, 2)])
def test_a_frame_sees_no_further_than_the_windows_of_all_layers(layers: int, window: int) -> None:
    torch.manual_seed(0)
    module = NeighbourMixer(width=16, layers=layers, window=window).eval()
    frames, mask = torch.randn(1, 12, 16), torch.ones(1, 12, dtype=torch.bool)
    other = frames.clone()
    other[0, 6] += torch.randn(16)
    with torch.no_grad():
        changed = (module(frames, mask) != module(other, mask)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == list(range(6 - layers * window, 7 + layers * window))


def test_missing_frames_are_as_the_end_of_the_clip() -> None:
    torch.manual_seed(0)
    module = NeighbourMixer(width=8, layers=2, window=1).eval()
    frames, mask = torch.randn(1, 6, 8), torch.arange(6)[None] < 4
    with torch.no_grad():
        padded, alone = module(frames, mask)[:, :4], module(frames[:, :4], mask[:, :4])
    assert torch.allclose(padded, alone, atol=1e-6)


def test_a_frame_tells_before_from_after() -> None:
    torch.manual_seed(0)
    module = NeighbourMixer(width=8, layers=1, window=1).eval()
    frames, mask = torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        forwards, backwards = module(frames, mask)[0, 1], module(frames.flip(1), mask)[0, 1]
    assert (forwards - backwards).abs().max() > 1e-2
