"""The heads that are asked what a frame shows: their losses by hand, and that they are learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbi_training.data.shapes.dataset import scene_at
from hbi_training.data.shapes.render import render
from hbi_training.data.shapes.stills import MOST_THINGS, PLACE, Stills, stills_of
from hbi_training.model.clip_encoders import FrameEncoder, SeenFrames, build_clip
from hbi_training.objective.stills import StillHeads
from tests.builders.tiny_training import CLIP


def seen(num: int, patches: int = 4, width: int = 8) -> SeenFrames:
    rng = torch.Generator().manual_seed(1)
    feature = torch.randn(num, width, generator=rng)
    patch, embedded = (torch.randn(num, patches, width, generator=rng) for _ in range(2))
    return SeenFrames(feature, patch, embedded)


def nothing(num: int) -> Stills:
    size = (num, MOST_THINGS)
    return Stills(
        np.full(size, -1), np.full(size, -1), np.zeros((*size, len(PLACE)), np.float32), np.zeros(size, np.bool_)
    )


def test_frames_without_things_are_told_by_their_number_alone() -> None:
    heads = StillHeads(patch_width=8, width=8)
    for head in (heads.feature, heads.embedded, heads.encoded[-1]):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    loss = heads.loss(seen(3), nothing(3)).item()
    # The number of each colour is one of five, and each patch has a middle or not: twice, the second counted half.
    assert loss == pytest.approx(4 * np.log(5) + 1.5 * 4 * np.log(2), rel=1e-5)


def test_only_the_patch_with_the_middle_is_asked() -> None:
    truth = nothing(1)
    truth.colour[0, 0], truth.shape[0, 0] = 2, 1
    truth.place[0, 0] = [0.8, 0.2, -2.0, 1.0, 0.0]
    frames = seen(1)
    patches = frames.patches.clone().requires_grad_()
    heads = StillHeads(patch_width=8, width=8)
    with torch.no_grad():
        heads.encoded[-1].weight[0] = 0  # whether a patch has a thing's middle is asked of all of them
    heads.loss(frames._replace(patches=patches), truth).backward()
    assert patches.grad is not None
    asked = patches.grad.abs().sum(-1)[0] > 0
    assert asked.tolist() == [False, True, False, False]  # the one on the right of the upper row


def test_things_outside_the_picture_and_turns_that_cannot_be_seen_do_no_harm() -> None:
    truth = nothing(1)
    truth.colour[0, 0], truth.shape[0, 0] = 0, 0
    truth.place[0, 0] = [1.2, -0.3, -2.0, 1e6, 1e6]
    heads = StillHeads(patch_width=8, width=8)
    assert heads.loss(seen(1), truth).item() < 100
    truth.turns[0, 0] = True
    assert heads.loss(seen(1), truth).item() > 1e5


def test_colours_and_places_are_learnt_from_a_few_frames() -> None:
    torch.manual_seed(0)
    times = np.arange(6) / 3
    every = [scene_at(5, "train", number) for number in range(8)]
    frames = torch.from_numpy(np.concatenate([render(scene, times, 32) for scene in every]))
    parts = zip(*(vars(stills_of(scene, times)).values() for scene in every), strict=True)
    truth = Stills(*(np.concatenate(part) for part in parts))
    encoder = FrameEncoder(build_clip(CLIP, vision_stem="residual"))
    heads = StillHeads(patch_width=32, width=32)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    for _ in range(60):
        loss = heads.loss(encoder.see(encoder.normalise(frames)), truth)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
