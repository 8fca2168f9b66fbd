"""The frame encoder's view of single frames: heads that tell what a frame shows, and the loss of what they tell.

A clip's captions and answers tell little of any frame, so a frame encoder with random weights learns from them slowly,
and hardly learns shapes. On drawn clips all that a frame shows is known (`hbi_training.data.shapes.stills`): it is
asked of the patch in which each thing lies, before and after the transformer, and of the frame's feature by colour.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbi_training.data.shapes.scene import COLOURS, SHAPES
from hbi_training.data.shapes.stills import MOST_THINGS, PLACE, Stills
from hbi_training.model.clip_encoders import SeenFrames

HEAD_WIDTH = 512
DEVIATIONS = (0.25, 0.25, 0.4, 0.7, 0.7)
"""Roughly how much each value of `PLACE` varies, which makes their errors alike."""
TELLS = (len(SHAPES), len(PLACE))


class StillHeads(nn.Module):
    """Reads from the frame encoder what a frame shows; only training needs it.

    Args:
        patch_width: Width of the encoder's patches.
        width: Width of a frame's feature.
    """

    deviations: Tensor

    def __init__(self, *, patch_width: int, width: int) -> None:
        super().__init__()
        of_patch = 1 + len(COLOURS) + sum(TELLS)
        self.embedded = nn.Linear(patch_width, of_patch)
        self.encoded = nn.Sequential(
            nn.LayerNorm(patch_width), nn.Linear(patch_width, HEAD_WIDTH), nn.GELU(), nn.Linear(HEAD_WIDTH, of_patch)
        )
        # Nothing but a product reads the feature, so that each colour's things have directions of their own in it. What
        # moves is then the difference of two features.
        self.feature = nn.Linear(width, len(COLOURS) * (MOST_THINGS + 1 + sum(TELLS)))
        self.register_buffer("deviations", torch.tensor(DEVIATIONS), persistent=False)

    def loss(self, seen: SeenFrames, truth: Stills) -> Tensor:
        """Computes the loss of what is seen of N frames, whose truth has shapes (N, K)."""
        known = [torch.from_numpy(part).to(seen.features.device) for part in vars(truth).values()]
        by_patch = [self._of_patches(head(patches), *known) for head, patches in self._patches(seen)]
        by_colour = self.feature(seen.features).float().unflatten(-1, (len(COLOURS), -1))
        return self._of_features(by_colour, *known) + by_patch[0] + 0.5 * by_patch[1]

    def _patches(self, seen: SeenFrames) -> tuple[tuple[nn.Module, Tensor], ...]:
        return (self.encoded, seen.patches), (self.embedded, seen.embedded)

    def _of_patches(self, told: Tensor, colour: Tensor, shape: Tensor, place: Tensor, turns: Tensor) -> Tensor:
        """Computes the loss of patches (N, G * G, ...): which has a thing's middle, and what that thing is."""
        told = told.float()
        side = int(told.shape[1] ** 0.5)
        visible = colour >= 0
        column, row = ((place[..., axis] * side).long().clamp(0, side - 1) for axis in (0, 1))
        cell = row * side + column
        has_middle = torch.zeros_like(told[..., 0]).scatter_reduce(1, cell, visible.float(), "amax")
        at_middle = told.gather(1, cell[..., None].expand(-1, -1, told.shape[-1]))
        _, of_colour, rest = at_middle.split((1, len(COLOURS), sum(TELLS)), -1)
        # A patch tells where in it the middle lies.
        inside = place.clone()
        inside[..., 0], inside[..., 1] = place[..., 0] * side - column, place[..., 1] * side - row
        return (
            4 * F.binary_cross_entropy_with_logits(told[..., 0], has_middle)
            + _cross_entropy(of_colour, colour)
            + self._of_things(rest, shape, inside, turns, deviations=torch.ones_like(self.deviations))
        )

    def _of_features(self, told: Tensor, colour: Tensor, shape: Tensor, place: Tensor, turns: Tensor) -> Tensor:
        """Computes the loss of features (N, C, ...): the number of things of each colour, and what each of them is."""
        visible = colour >= 0
        column = colour.clamp_min(0)
        number = torch.zeros_like(told[..., 0]).scatter_add(1, column, visible.float()).long()
        of_number, rest = told.split((MOST_THINGS + 1, sum(TELLS)), -1)
        of_thing = rest.gather(1, column[..., None].expand(-1, -1, rest.shape[-1]))
        return 4 * _cross_entropy(of_number, number) + self._of_things(
            of_thing, shape, place, turns, deviations=self.deviations
        )

    def _of_things(self, told: Tensor, shape: Tensor, place: Tensor, turns: Tensor, *, deviations: Tensor) -> Tensor:
        of_shape, of_place = told.split(TELLS, -1)
        error = F.smooth_l1_loss(of_place / deviations, place / deviations, reduction="none", beta=0.1)
        known = (shape >= 0)[..., None].repeat(1, 1, len(PLACE))
        known[..., 3:] &= turns[..., None]
        return _cross_entropy(of_shape, shape) + 2 * error.masked_fill(~known, 0).sum() / known.sum().clamp_min(1)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Averages the cross-entropy of (N, K, ...) over known targets (N, K); 0 if none is."""
    total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp_min(1)
