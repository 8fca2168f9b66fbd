"""Results that show the same: clips of copies, or of other encodings, of a video that a better result is of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.index.store import StoredClip
from hbi_infer.options import Dedupe
from hbi_infer.tokens.levels import unit

LEAST_COSINES: dict[Dedupe, float] = {"same": 0.9995, "near": 0.95}
"""Least cosine of each two frames of clips that are folded, at the first level, which has a token for each frame."""
MOST_SECONDS_APART: dict[Dedupe, float] = {"same": 0.05, "near": 1.0}
"""Largest difference between the durations of clips that are folded."""


class Duplicates:
    """Tells which of the clips that were seen before a clip repeats.

    Args:
        index: The index that the clips are of.
        how: Likeness of duplicates: "same", or "near" for those that are nearly the same too.
        most: Largest number of clips that repeat none.
    """

    def __init__(self, index: FolderIndex, how: Dedupe, most: int) -> None:
        self._index = index
        self._least_cosine, self._most_seconds_apart = LEAST_COSINES[how], MOST_SECONDS_APART[how]
        self._loaded: dict[int, npt.NDArray[np.float32]] = {}
        self._originals: list[tuple[StoredClip, npt.NDArray[np.float32]]] = []
        # Most clips differ in the first frame already: all of these are compared in one product.
        self._first_frames = np.zeros((most, index.store.layout.width), np.float32)

    def load(self, clips: Sequence[StoredClip]) -> None:
        """Reads the tokens of clips that are going to be asked about."""
        ids, levels = self._index.tokens(np.array([clip.clip_id for clip in clips], np.int64))
        level = next(iter(levels.values()))
        units, real = unit(level.tokens), level.weights > 0
        for row, clip_id in enumerate(ids.tolist()):
            self._loaded[clip_id] = units[row][real[row]]

    def original(self, clip: StoredClip) -> StoredClip | None:
        """Returns the earlier clip that this one repeats; None if it is an original, to compare later ones with.

        A clip of the same video is another moment, and repeats nothing. The clip must have been loaded.
        """
        frames = self._loaded.pop(clip.clip_id, None)
        if frames is None:  # gone since it was found
            return None
        alike = self._first_frames[: len(self._originals)] @ frames[0] >= self._least_cosine
        for number in np.flatnonzero(alike):
            earlier, its_frames = self._originals[number]
            if self._could_repeat(earlier, clip) and self._look_alike(its_frames, frames):
                return earlier
        if len(self._originals) < len(self._first_frames):
            self._first_frames[len(self._originals)] = frames[0]
            self._originals.append((clip, frames))
        return None

    def _could_repeat(self, original: StoredClip, clip: StoredClip) -> bool:
        seconds = [one.end_seconds - one.start_seconds for one in (original, clip)]
        return original.path != clip.path and abs(seconds[0] - seconds[1]) <= self._most_seconds_apart

    def _look_alike(self, one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
        """Compares the frames (K, D) of two clips in their order."""
        return len(one) == len(other) and bool(np.einsum("kd,kd->k", one, other).min() >= self._least_cosine)
