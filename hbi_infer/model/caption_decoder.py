"""The caption decoder of a bundle: two graphs, one that reads a video and one that writes a token at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays, Runnable
from hbi_infer.tokens.levels import Levels, named_inputs

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CaptionState:
    """The state of N captions that are being written.

    Attributes:
        clips: (N,) number of the clip that each caption is about.
        memory: Keys and values of the clips' tokens, N rows each.
        cache: Keys and values of the words so far, N rows each.
    """

    clips: Ids
    memory: Arrays
    cache: Arrays


class CaptionDecoder:
    """Writes the next token of captions; `hbi_infer.model.text_generation` chooses it.

    Args:
        prefill: Reads clips and writes the start.
        step: Writes every further token.
    """

    def __init__(self, prefill: Runnable, step: Runnable) -> None:
        self._prefill = prefill
        self._step = step

    def begin(self, video: Levels) -> tuple[npt.NDArray[np.float32], CaptionState]:
        """Computes logits (B, A) of the first token from the tokens of B clips, and the state behind the start."""
        made = self._prefill.run(named_inputs("video", video))
        logits: npt.NDArray[np.float32] = made["logits"]
        return logits, CaptionState(np.arange(len(logits)), _of(made, "memory_"), _past(made))

    def step(self, token_ids: Ids, state: CaptionState) -> tuple[npt.NDArray[np.float32], CaptionState]:
        """Computes logits (N, A) of the next token from the last token (N,) of each caption, and the next state."""
        made = self._step.run({"token_ids": token_ids, **state.memory, **state.cache})
        return made["logits"], CaptionState(state.clips, state.memory, _past(made))

    def select(self, state: CaptionState, rows: Ids) -> CaptionState:
        """Returns the state of the captions `rows` (N,). The memory is not copied where the clips stay the same."""
        clips = state.clips[rows]
        memory = state.memory
        if not np.array_equal(clips, state.clips):
            memory = {name: array[rows] for name, array in memory.items()}
        return CaptionState(clips, memory, {name: array[rows] for name, array in state.cache.items()})


def _past(made: Arrays) -> Arrays:
    """Renames the present keys and values, which are past for the next token."""
    return {name.replace("present_", "past_"): array for name, array in _of(made, "present_").items()}


def _of(made: Arrays, prefix: str) -> Arrays:
    return {name: array for name, array in made.items() if name.startswith(prefix)}
