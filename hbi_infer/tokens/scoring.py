"""The way in which a bundle compares texts and clips: the rate of each level, the sums, the meaning of padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.layout import TokenLayout
from hbi_infer.tokens.levels import Levels, pooled
from hbi_infer.tokens.similarity import ClipMatrix, Directions, PaddedPartner, similarity


@dataclass(frozen=True)
class Scoring:
    """How scores are made of tokens; `hbi_infer.tokens.similarity` has the formula.

    Attributes:
        rates: Level name -> rate of its similarity in the score.
        padded_partner: Meaning of padding in the maxima of the similarity.
        directions: Sums of the similarity that count.
    """

    rates: Mapping[str, float]
    padded_partner: PaddedPartner = "ignore"
    directions: Directions = "both"

    def at(self, level: str) -> Scoring:
        """Returns the scoring by one level alone, at a rate of 1."""
        return replace(self, rates={level: 1.0})

    def similarity(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes the scores (Bt, Bv) of Bt texts with Bv clips."""
        return similarity(text, video, self.rates, padded_partner=self.padded_partner, directions=self.directions)

    def pooled(self, levels: Levels) -> npt.NDArray[np.float32]:
        """Computes unit vectors (B, D): the weighted mean unit token of each level, summed by rate."""
        return pooled(levels, self.rates)

    def matrix(self, layout: TokenLayout, capacity: int) -> ClipMatrix:
        """Makes room for the tokens of `capacity` clips that are to be scored."""
        return ClipMatrix(layout, self.rates, capacity, padded_partner=self.padded_partner, directions=self.directions)
