"""The fidelity of a map of interactions: the loss of similarity without the pairs that the map calls strong.

To *remove a pair* of text token i and video token j is to set their cosine to 0, the floor of the Banzhaf game
(`hbi_infer.tokens.banzhaf`): neither can be the other's partner any more, and each takes the best of its other
partners, if one has a cosine above 0. Weights and all other cosines stay. The quantity measured is the game's value of
all tokens together,

    v = 1/2 * (sum_i a_i max(0, max_j A_ij) + sum_j u_j max(0, max_i A_ij)),

which is the similarity as long as every token has a partner with a cosine above 0; where the similarity is its sum over
the text alone, v is that sum without the 1/2. It never rises when a pair is
removed, and is 0 when none is left. Pairs are removed one by one in some order, and the share of v that is lost after
each is the deletion curve of that order. A map is faithful if the order of its values, largest first, loses more, and
earlier, than a random order.

The interaction asks more than this can show: it is a mean over all coalitions, where other words take over the weight
of those that are out, and it is negative where two tokens that match are each replaced well by others. Such a pair may
well carry the similarity of all tokens together. So the order by magnitude is measured too, and, to compare with, that
of the bare cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.game import Floats, Game

NUM_DRAWS = 100
"""Random orders that are averaged; they are the same ones every time."""

SHARES = tuple(tenths / 10 for tenths in range(11))
HEADLINE = SHARES.index(0.1)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The loss when pairs are removed in one order; for random orders the means, with their standard errors.

    Attributes:
        drop: Share of the value lost with the first tenth of the pairs (rounded up).
        drop_error: Its standard error; 0 for an order that is not random.
        area: The mean loss over the whole curve: near 1 if the first pairs were all that mattered.
        area_error: Its standard error.
        curve: The loss at each of `SHARES` of the pairs (rounded up); the first is 0, the last 1.
    """

    drop: float
    drop_error: float
    area: float
    area_error: float
    curve: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Deletion curves of one map.

    Attributes:
        num_pairs: Number of word-frame pairs.
        num_removed: A tenth of them, rounded up: the number of pairs removed for `Deletion.drop`.
        by_interaction: The largest interaction first, negative ones last.
        by_magnitude: The interaction farthest from 0 first.
        by_cosine: The largest cosine first.
        at_random: The mean of `NUM_DRAWS` random orders.
    """

    num_pairs: int
    num_removed: int
    by_interaction: Deletion
    by_magnitude: Deletion
    by_cosine: Deletion
    at_random: Deletion

    def __str__(self) -> str:
        random = self.at_random
        return (
            f"without the top {self.num_removed} of {self.num_pairs} pairs the similarity falls by "
            f"{self.by_interaction.drop:.0%} (by interaction), {self.by_magnitude.drop:.0%} (by its magnitude), "
            f"{self.by_cosine.drop:.0%} (by cosine), {random.drop:.1%} ± {random.drop_error:.1%} (at random)"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        document = asdict(self) | {"shares": list(SHARES), "draws": NUM_DRAWS}
        for name in ("by_interaction", "by_magnitude", "by_cosine", "at_random"):
            document[name]["curve"] = list(document[name]["curve"])
        return document


def measure_fidelity(games: Sequence[Game]) -> Fidelity | None:
    """Measures the fidelity of the map of one game, or of the maps of several whose values are summed by their rates.

    The interaction in a weighted sum of games without common players is the interaction in the one game that holds the
    pair, times its rate: so pairs of several levels are put in one order.

    Returns:
        None if no pair has a cosine above 0: there is nothing to lose.
    """
    pairs = _Pairs(games)
    value = pairs.values(np.arange(len(pairs.cosines)))[0]
    if not value > 0:
        return None
    rng = np.random.default_rng(0)
    orders = {
        "by_interaction": [_descending(pairs.strengths)],
        "by_magnitude": [_descending(abs(pairs.strengths))],
        "by_cosine": [_descending(pairs.cosines)],
        "at_random": [rng.permutation(len(pairs.cosines)) for _ in range(NUM_DRAWS)],
    }
    return Fidelity(
        num_pairs=len(pairs.cosines),
        num_removed=_num_removed(SHARES[HEADLINE], len(pairs.cosines)),
        **{
            name: _deletion(np.stack([1 - pairs.values(order) / value for order in some]))
            for name, some in orders.items()
        },
    )


class _Pairs:
    """The pairs of all games in one row, N in all; tokens are numbered across the games.

    Attributes:
        cosines: (N,).
        strengths: (N,) interactions times the game's rate.
    """

    def __init__(self, games: Sequence[Game]) -> None:
        self.cosines = np.concatenate([game.cosines.ravel() for game in games])
        self.strengths = np.concatenate([game.rate * game.interaction.ravel() for game in games])
        both = np.array([game.directions == "both" for game in games])
        text_factors, video_factors = np.where(both, 0.5, 1.0), np.where(both, 0.5, 0.0)
        self._text_weights = np.concatenate(
            [factor * game.rate * game.text_weights for factor, game in zip(text_factors, games, strict=True)]
        )
        self._video_weights = np.concatenate(
            [factor * game.rate * game.video_weights for factor, game in zip(video_factors, games, strict=True)]
        )
        # (T, V) of each game -> which tokens (N,) each pair is of
        grids = [np.indices(game.cosines.shape).reshape(2, -1) for game in games]
        starts = np.cumsum([(0, 0), *(game.cosines.shape for game in games)], axis=0)[:-1]
        moved = [grid + start[:, None] for grid, start in zip(grids, starts, strict=True)]
        self._words, self._frames = np.concatenate(moved, axis=1)

    def values(self, order: npt.NDArray[np.int64]) -> Floats:
        """Computes the values (N + 1,) without the first 0, 1, ... N pairs of an order (N,)."""
        text_sum = self._best_left(self._words[order], order, len(self._text_weights)) @ self._text_weights
        video_sum = self._best_left(self._frames[order], order, len(self._video_weights)) @ self._video_weights
        value: Floats = text_sum + video_sum
        return value

    def _best_left(self, tokens: npt.NDArray[np.int64], order: npt.NDArray[np.int64], num_tokens: int) -> Floats:
        """Computes the largest cosine (N + 1, num_tokens) of each token, at least 0, among the pairs that are left."""
        best = np.zeros((len(order) + 1, num_tokens))
        best[np.arange(len(order)), tokens] = np.maximum(self.cosines[order], 0)
        # Backwards: the pairs come back one by one, the last removed first.
        running: Floats = np.maximum.accumulate(best[::-1], axis=0)[::-1]
        return running


def _descending(values: Floats) -> npt.NDArray[np.int64]:
    return np.argsort(-values, kind="stable")


def _deletion(losses: Floats) -> Deletion:
    """Summarises the losses (R, N + 1) of R orders."""
    num_pairs = losses.shape[1] - 1
    areas = np.trapezoid(losses, dx=1 / num_pairs, axis=1)
    curves = losses[:, [_num_removed(share, num_pairs) for share in SHARES]]
    mean = curves.mean(axis=0)
    return Deletion(
        drop=float(mean[HEADLINE]),
        drop_error=_standard_error(curves[:, HEADLINE]),
        area=float(areas.mean()),
        area_error=_standard_error(areas),
        curve=tuple(mean.tolist()),
    )


def _num_removed(share: float, num_pairs: int) -> int:
    return ceil(share * num_pairs - 1e-9)


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
