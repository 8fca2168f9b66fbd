"""A query to an index: one text or a video, several texts that must all match, and what must not be there.

Scores of different texts cannot be compared as they are: one text is near to every clip, another to none. Where texts
are weighed against each other, each is put on a scale of its own first: by how many standard deviations a clip's score
lies above the mean score of the text with the index's clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.levels import Levels

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """Means and standard deviations of the scores of P texts with the clips of an index.

    Attributes:
        mean: (P, 1) float32.
        deviation: (P, 1) float32; 1 where all scores are the same, as those of a single clip are.
    """

    mean: Float32Array
    deviation: Float32Array

    @classmethod
    def of(cls, scores: Float32Array) -> Scale:
        """Returns the scale of scores (P, M) of P texts with M clips; with no clip, scores stay as they are."""
        if not scores.size:
            return cls(np.zeros((len(scores), 1), np.float32), np.ones((len(scores), 1), np.float32))
        deviation = scores.std(axis=1, keepdims=True)
        # Equal scores differ by their rounding.
        constant = deviation <= 1e-6 * np.abs(scores).max(axis=1, keepdims=True)
        return cls(scores.mean(axis=1, keepdims=True), np.where(constant, np.float32(1), deviation))

    def standard(self, scores: Float32Array) -> Float32Array:
        """Returns scores (P, N) as standard deviations above the mean, (P, N)."""
        return (scores - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class Query:
    """Things that a clip must match, and things that it must not.

    Attributes:
        wanted: P texts, or the clips of a video, each a batch of one.
        joined: Whether a clip must match all of `wanted`; otherwise the best of them counts.
        unwanted: Texts that a clip must not match, each a batch of one.
        content: For each wanted text, by which part each of its T real tokens of the first level stands for words of
            content, (T,); empty if the query is a video.
    """

    wanted: Sequence[Levels]
    joined: bool = False
    unwanted: Sequence[Levels] = ()
    content: Sequence[npt.NDArray[np.float64]] = ()

    @property
    def parts(self) -> list[Levels]:
        """All P + U texts or clips that are scored: the wanted ones, then the unwanted."""
        return [*self.wanted, *self.unwanted]

    @property
    def needs_scale(self) -> bool:
        """Whether scores are weighed against each other, so that the scores of more clips are needed."""
        return self.joined or bool(self.unwanted)

    def shown_for(self, part: int) -> Sequence[int]:
        """Returns the numbers of the texts or clips that a result is shown for: that of its score, or all if joined."""
        return range(len(self.wanted)) if self.joined else [part]

    def combined(
        self, scores: Float32Array, sample: Float32Array | None = None
    ) -> tuple[Float32Array, npt.NDArray[np.int64]]:
        """Joins the scores of all parts with N clips into one for each clip.

        One wanted part gives its score, several the best of theirs. If they are joined it is the least of their
        standard scores: a clip is as good as its worst match. What is unwanted takes from that: the greatest standard
        score of the unwanted texts, where it is above 0, times the standard deviation of the score that it is taken
        from. A clip that an unwanted text fits no better than it fits most clips loses nothing.

        Args:
            scores: (P + U, N) scores of all parts with N clips.
            sample: (P + U, M) scores of all parts with clips of the index, of which the scales are made; None if
                there is nothing to be weighed.

        Returns:
            (N,) float32 the scores, and (N,) int64 the number of the wanted part that gave each.
        """
        num_wanted = len(self.wanted)
        wanted, unwanted = scores[:num_wanted], scores[num_wanted:]
        if sample is None or not self.needs_scale:
            return wanted.max(axis=0), wanted.argmax(axis=0)
        wanted_sample, unwanted_sample = sample[:num_wanted], sample[num_wanted:]
        if self.joined:
            scale = Scale.of(wanted_sample)
            wanted, wanted_sample = scale.standard(wanted), scale.standard(wanted_sample)
            joined, parts, typical = wanted.min(axis=0), wanted.argmin(axis=0), wanted_sample.min(axis=0)
        else:
            joined, parts, typical = wanted.max(axis=0), wanted.argmax(axis=0), wanted_sample.max(axis=0)
        if self.unwanted:
            excess = Scale.of(unwanted_sample).standard(unwanted).max(axis=0)
            joined = joined - Scale.of(typical[None]).deviation[0] * np.maximum(excess, np.float32(0))
        return joined, parts
