"""The cooperative game of one level of a text and a video, with the interaction of its players."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.levels import LevelTokens, unit
from hbi_infer.tokens.similarity import Directions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Game:
    """A level's game and its map: T real tokens of the text, V of the video.

    Attributes:
        cosines: (T, V).
        text_weights: (T,), above 0 with a sum of 1.
        video_weights: (V,), above 0 with a sum of 1.
        interaction: (T, V).
        rate: Factor of the game's value in the sum over several games.
        directions: Sums of the similarity that count.
    """

    cosines: Floats
    text_weights: Floats
    video_weights: Floats
    interaction: Floats
    rate: float = 1.0
    directions: Directions = "both"


def game_of(text: LevelTokens, video: LevelTokens, rate: float = 1.0, directions: Directions = "both") -> Game:
    """Makes the game of one level, each side a batch of one, with its exact map; padding is no player."""
    (text_units, text_weights), (video_units, video_weights) = (_players(text), _players(video))
    cosines = text_units @ video_units.T
    interaction = banzhaf_interaction(cosines[None], text_weights[None], video_weights[None], directions=directions)[0]
    return Game(
        cosines=cosines,
        text_weights=text_weights,
        video_weights=video_weights,
        interaction=interaction,
        rate=rate,
        directions=directions,
    )


def _players(level: LevelTokens) -> tuple[Floats, Floats]:
    """Returns unit vectors (N, D) and weights (N,) of the real tokens of a batch of one."""
    real = level.weights[0] > 0
    weights = level.weights[0, real].astype(np.float64)
    return unit(level.tokens[0, real]).astype(np.float64), weights / weights.sum()
