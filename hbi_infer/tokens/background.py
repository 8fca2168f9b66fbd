"""How unusual a score is in an index: `match`, from 0 to 1.

A score says little by itself: what is high for one model, or in one folder, is low in another. The background says what
to expect. A few hundred neutral sentences, which know nothing of the folder, are scored with a sample of its clips.
Among n clips a sentence that is not about them still finds a best one, with a score that grows with n. The mean and the
standard deviation of these best scores, over the sentences and over all choices of n clips of the sample, are what a
query has to surpass:

    match = P(a normally distributed best score < the score)

So 0.97 means that of 100 sentences that are not about these clips, 97 find nothing that matches as well. Decisions that
hold for folders of every kind:

- The match grows with the score and depends on nothing else of the clip, so it never disagrees with the order of
  results. Standardising the scores of each clip, or of each query, was tried: in the drawn world it separates present
  from absent scenes worse.
- With few clips nothing is estimated from their number alone: with one clip, the background is what several hundred
  sentences score with it. A clip that matches everything raises the background, and with it what a query must reach.
- Beyond `MOST_CLIPS` the background grows no further, though the best of many more clips does. Otherwise the score
  that a right result needs would grow with the folder, while the scores of right results do not: of 1,000 drawn
  clips it would hide more right results than the wrong ones are worth. A large folder shows more wrong results
  instead.
- A video as query has no match: sentences are no background for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import InputError

MOST_CLIPS = 128
"""Largest number of clips among which the neutral sentences look for the best one."""

SAMPLE_CLIPS = 256
"""Largest number of clips that the neutral sentences are scored with."""

LEAST_DEVIATION = 1e-4
"""Least standard deviation: half precision of tokens changes a score by as much."""


@dataclass(frozen=True)
class Background:
    """Best scores of neutral sentences among numbers of clips.

    Attributes:
        num_clips: (K,) numbers of clips, ascending, 1 first.
        means: (K,) mean best score among so many clips.
        deviations: (K,) standard deviation of the best score.
    """

    num_clips: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (*self.means, *self.deviations)
        lengths = {len(self.num_clips), len(self.means), len(self.deviations)}
        if self.num_clips[:1] != (1,) or len(lengths) > 1 or list(self.num_clips) != sorted(set(self.num_clips)):
            raise InputError(f"the background is of {self.num_clips} clips; it must be of 1 clip first, then of more")
        if not all(map(math.isfinite, numbers)) or min(self.deviations) < LEAST_DEVIATION:
            raise InputError(
                f"the background has means {self.means} and deviations {self.deviations}: not finite, or 0"
            )

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating[Any]]) -> Background:
        """Computes the background from the scores (J, S) of J neutral sentences with a sample of S clips.

        Raises:
            InputError: There are no scores, or one is not finite.
        """
        if 0 in scores.shape or not np.isfinite(scores).all():
            raise InputError(f"the background needs finite scores of sentences with clips; given were {scores.shape}")
        ascending = np.sort(scores.astype(np.float64), axis=1)
        most = min(MOST_CLIPS, ascending.shape[1])
        numbers = sorted({*(2**power for power in range(most.bit_length())), most})
        moments = [_best_of(ascending, number) for number in numbers]
        return cls(tuple(numbers), tuple(mean for mean, _ in moments), tuple(deviation for _, deviation in moments))

    def match(self, score: float, num_clips: int) -> float:
        """Returns how unusual a score is as the best one among a number of clips, from 0 to 1."""
        place = math.log(max(1, num_clips))
        places = np.log(self.num_clips)
        mean = float(np.interp(place, places, self.means))
        deviation = float(np.interp(place, places, self.deviations))
        return 0.5 * math.erfc((mean - score) / (deviation * math.sqrt(2)))

    def to_json(self) -> dict[str, list[float]]:
        """Returns a value that `json.dumps` takes."""
        return {
            "num_clips": list(self.num_clips),
            "means": list(self.means),
            "deviations": list(self.deviations),
        }

    @classmethod
    def from_json(cls, document: Any) -> Background:
        """Reads what `to_json` returned.

        Raises:
            InputError: The document is something else.
        """
        try:
            parts = [document[name] for name in ("num_clips", "means", "deviations")]
            return cls(tuple(map(int, parts[0])), tuple(map(float, parts[1])), tuple(map(float, parts[2])))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"the background is {document!r:.80}; it must have numbers of clips, means, deviations"
            ) from error


def sample(num_clips: int) -> npt.NDArray[np.int64]:
    """Returns the positions (S,) of the clips to score neutral sentences with, spread evenly over all."""
    size = min(num_clips, SAMPLE_CLIPS)
    return np.arange(size, dtype=np.int64) * num_clips // max(size, 1)


def _best_of(ascending: npt.NDArray[np.float64], number: int) -> tuple[float, float]:
    """Returns mean and standard deviation of the best score of a random sentence among `number` random clips.

    The i-th lowest of S scores is the best of n chosen ones in C(i - 1, n - 1) of C(S, n) choices.
    """
    size = ascending.shape[1]
    chances = [
        math.exp(_log_choices(place - 1, number - 1) - _log_choices(size, number)) for place in range(number, size + 1)
    ]
    best = ascending[:, number - 1 :]
    mean = float((best @ chances).mean())
    variance = float(((best - mean) ** 2 @ chances).mean())
    return mean, max(math.sqrt(variance), LEAST_DEVIATION)


def _log_choices(size: int, number: int) -> float:
    return math.lgamma(size + 1) - math.lgamma(number + 1) - math.lgamma(size - number + 1)
