"""Builds an explanation whose second level has tokens merged of frames that are not in the order of time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hbi_infer.tasks.explain import Explanation


def merged(explanation: Explanation) -> Explanation:
    """Returns an explanation of four frames with a second level of three video tokens, one of them padding."""
    entity, event = explanation.levels
    groups = ((1, 3), (), (0, 2))
    action = replace(
        event,
        name="action",
        frame_groups=groups,
        frames=tuple(tuple(explanation.frame_seconds[place] for place in group) for group in groups),
        interaction=np.array([[0.25, -0.5, 0.75]]),
        cosines=np.array([[0.1, 0.2, 0.3]]),
        video_weights=np.array([0.5, 0.125, 0.375]),
    )
    return replace(explanation, levels=(entity, action))
