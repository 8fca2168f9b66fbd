"""Names, orders and measures the columns of an explanation's maps, for the table, the picture and the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbi_infer.tasks.explain import Explanation, LevelExplanation


def in_time(level: LevelExplanation) -> LevelExplanation:
    """Returns the level with its V video tokens in the order of their first frames, those without a frame last."""
    first_frames = [min(group, default=sys.maxsize) for group in level.frame_groups]
    order = sorted(range(len(first_frames)), key=first_frames.__getitem__)
    return replace(
        level,
        frames=tuple(level.frames[column] for column in order),
        frame_groups=tuple(level.frame_groups[column] for column in order),
        interaction=level.interaction[:, order],
        cosines=level.cosines[:, order],
        video_weights=level.video_weights[order],
    )


def times(group: Sequence[int], frame_seconds: Sequence[float]) -> str:
    """Returns the times of some frames in order, a run of neighbours as a range.

    Args:
        group: Positions of the frames in `frame_seconds`.
        frame_seconds: Time of each frame of the clip.

    >>> times([3, 0, 2], [0.0, 0.5, 1.0, 1.5])
    '0.0, 1.0-1.5'
    """
    runs = [[place for _, place in run] for _, run in groupby(enumerate(sorted(group)), lambda pair: pair[1] - pair[0])]
    return ", ".join(
        f"{frame_seconds[run[0]]:.1f}" + (f"-{frame_seconds[run[-1]]:.1f}" if len(run) > 1 else "") for run in runs
    )


def most_cells(explanation: Explanation) -> int:
    """Returns the width of the widest map in frames; a token without a frame takes the width of one."""
    return max(sum(max(len(group), 1) for group in level.frame_groups) for level in explanation.levels)
