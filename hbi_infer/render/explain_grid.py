"""Names, orders and measures the rows and columns of an explanation's maps, for the table, the picture and the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hbi_infer.tasks.explain import Explanation, LevelExplanation
    from hbi_infer.tasks.word_map import Phrase, WordMap
    from hbi_infer.tokens.groups import Groups

WORDS = "words"
"""Name of the map of words, where levels have names."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A map as it is shown: R rows of words by C columns of frames.

    Attributes:
        words: (R,) text of each row.
        values: (R, C) float64.
        frame_groups: (C,) the frames of each column, as positions in `Explanation.frame_seconds`.
        word_weights: (R,) weights of the rows; None if they have none.
        frame_weights: (C,) weights of the columns; None if they have none.
        hints: (R, C) cosines, to be shown beside the values; None if there are none.
        phrases: Rows and columns that belong together, to be marked.
    """

    words: Sequence[str]
    values: npt.NDArray[np.float64]
    frame_groups: Groups
    word_weights: Sequence[float] | None = None
    frame_weights: Sequence[float] | None = None
    hints: npt.NDArray[np.float64] | None = None
    phrases: Sequence[Phrase] = ()

    @classmethod
    def of_level(cls, level: LevelExplanation) -> Grid:
        """Returns the map of a level, its columns in the order of their first frames, those without a frame last."""
        first_frames = [min(group, default=sys.maxsize) for group in level.frame_groups]
        order = sorted(range(len(first_frames)), key=first_frames.__getitem__)
        return cls(
            words=level.words,
            values=level.interaction[:, order],
            frame_groups=tuple(level.frame_groups[column] for column in order),
            word_weights=level.text_weights.tolist(),
            frame_weights=level.video_weights[order].tolist(),
            hints=level.cosines[:, order],
        )

    @classmethod
    def of_words(cls, word_map: WordMap) -> Grid:
        """Returns the map of words, with the phrases that do not belong to the whole clip marked."""
        return cls(
            words=word_map.words,
            values=word_map.values,
            frame_groups=tuple((place,) for place in range(word_map.values.shape[1])),
            phrases=[phrase for phrase in word_map.phrases if not phrase.is_everywhere],
        )

    def is_marked(self, row: int, column: int) -> bool:
        """Returns whether a cell is of a phrase and its moment."""
        frames = set(self.frame_groups[column])
        return any(row in phrase.words and frames.intersection(phrase.frames) for phrase in self.phrases)


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
