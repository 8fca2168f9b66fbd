"""Whether a clip is like those that a model was trained on.

A model answers in full confidence about clips of another world than its own. Its tokens tell them apart, but hardly by
their distance: training draws every clip towards what the model knows, and cosines to the nearest training clips let
nine in ten real videos pass for drawn shapes. One direction does better. It is the one that separates the training
clips best from clips of textures and random pictures, which no camera and no training set shows (Fisher's linear
discriminant), in the space of a clip's mean unit token at the first level. A clip that lies farther along it than 99 %
of training clips that had no part in finding it is unfamiliar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError
from hbi_infer.tokens.levels import Levels, unit

PASSING = 0.99
"""Share of held-out training clips that are familiar."""

SHRINKAGE = 0.01
"""Share of the mean variance that is added to each axis, so that few clips give a usable direction too."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The direction away from the training clips.

    Attributes:
        direction: (D,) float32 of length 1.
        limit: Greatest component along it of a familiar clip.
    """

    direction: Vectors
    limit: float

    def unfamiliar(self, clips: Levels) -> npt.NDArray[np.bool_]:
        """Returns (B,) for each of B clips whether it is unlike those of the training."""
        return self.distances(clip_vectors(clips)) > 0

    def distances(self, vectors: Vectors) -> npt.NDArray[np.float64]:
        """Returns (B,) how far vectors (B, D) of clips lie beyond the limit; negative for familiar ones."""
        return vectors.astype(np.float64) @ self.direction.astype(np.float64) - self.limit

    @classmethod
    def fitted(cls, familiar: Vectors, strange: Vectors) -> Familiarity:
        """Finds the direction from vectors of training clips (N, D) and of others (M, D).

        Every fourth training clip has no part in it, and gives the limit.

        Raises:
            InputError: There are fewer than 30 training clips or 20 others.
        """
        if len(familiar) < 30 or len(strange) < 20:
            raise InputError(f"there are {len(familiar)} training clips and {len(strange)} others: give 30 and 20")
        is_held_out = np.arange(len(familiar)) % 4 == 3
        known, others = familiar[~is_held_out].astype(np.float64), strange.astype(np.float64)
        spread = np.cov(known.T) + np.cov(others.T)
        spread += (SHRINKAGE * np.trace(spread) / len(spread) + 1e-9) * np.eye(len(spread))
        direction = np.linalg.solve(spread, others.mean(axis=0) - known.mean(axis=0))
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        along = familiar[is_held_out].astype(np.float64) @ direction.astype(np.float64)
        return cls(direction, float(np.quantile(along, PASSING)))


def unfamiliar(familiarity: Familiarity | None, clips: Levels) -> npt.NDArray[np.bool_]:
    """Returns (B,) for each of B clips whether it is unlike those of the training; False where nothing is known."""
    if familiarity is not None:
        return familiarity.unfamiliar(clips)
    return np.zeros(len(next(iter(clips.values())).weights), np.bool_)


def clip_vectors(clips: Levels) -> Vectors:
    """Returns the vectors (B, D) float32 of B clips: the weighted mean unit token of the first level."""
    level = next(iter(clips.values()))
    vectors: Vectors = np.einsum("bv,bvd->bd", level.weights.astype(np.float32), unit(level.tokens))
    return vectors
