"""Sentences that know nothing of a folder, and their tokens: what a query's score is compared with.

A bundle may bring sentences of its own world, as tokens that its text encoder made, in a file of its own. For any
other one 256 sentences about everyday scenes are encoded when they are first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import BundleError
from hbi_infer.model.encoder import Encoder
from hbi_infer.tokens.levels import Levels, LevelTokens, unsound

if TYPE_CHECKING:
    from hbi_infer.model.bundle import Bundle

TEXTS_AT_A_TIME = 32
MOST_TEXTS = 4096
"""Largest number of sentences that a bundle may bring: far more than a background needs."""


def neutral_sentences() -> list[str]:
    """Returns sentences about everyday scenes, each about another one."""
    path = resources.files("hbi_infer").joinpath("data/neutral_sentences.txt")
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def neutral_tokens(encoder: Encoder) -> Levels:
    """Returns the tokens of J neutral sentences, (J, T, D) at each level: those of the bundle, or encoded now.

    Raises:
        BundleError: The bundle's file is not the one that was exported, or makes no sense.
    """
    if encoder.bundle.manifest.background is None:
        return encoded_texts(encoder, neutral_sentences())
    return _tokens_of(encoder.bundle)


def encoded_texts(encoder: Encoder, texts: list[str]) -> Levels:
    """Computes the tokens of J texts, some at a time; one that is too long is cut."""
    parts = [
        encoder.encode_tokens(encoder.tokenize(texts[start : start + TEXTS_AT_A_TIME]))
        for start in range(0, len(texts), TEXTS_AT_A_TIME)
    ]
    return {name: _side_by_side([part[name] for part in parts]) for name in parts[0]}


def background_file(texts: Levels) -> bytes:
    """Returns the tokens of J texts as a bundle's file: safetensors, tokens in half precision at unit length."""
    from safetensors.numpy import save

    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, level in texts.items():
        lengths = np.linalg.norm(level.tokens.astype(np.float32), axis=2, keepdims=True)
        arrays[f"{name}_tokens"] = (level.tokens / np.maximum(lengths, 1e-12)).astype(np.float16)
        arrays[f"{name}_weights"] = level.weights.astype(np.float32)
    return save(arrays)


def _tokens_of(bundle: Bundle) -> Levels:
    """Reads the background's file of a bundle: the tokens of J texts."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = bundle.background_bytes()
    where = f"the background of {bundle.path}"
    try:
        arrays = load(content)
        levels = {level.name: _level(arrays, level.name) for level in bundle.manifest.levels}
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{where} cannot be read ({error!r:.120}): export the bundle again") from error
    numbers = {len(level) for level in levels.values()}
    widths = {level.tokens.shape[2] for level in levels.values()}
    if len(numbers) > 1 or not 1 <= min(numbers) <= MOST_TEXTS or widths != {bundle.manifest.width}:
        raise BundleError(f"{where} has {numbers} texts of the widths {widths}: export the bundle again")
    if fault := unsound(levels):
        raise BundleError(f"{where} has {fault}: export the bundle again")
    return levels


def _level(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> LevelTokens:
    """Returns the tokens (J, T, D) and weights (J, T) of a level."""
    return LevelTokens(arrays[f"{name}_tokens"].astype(np.float32), arrays[f"{name}_weights"].astype(np.float32))


def _side_by_side(parts: list[LevelTokens]) -> LevelTokens:
    """Joins batches (B, T, D) of a level whose numbers of tokens differ: shorter ones are padded."""
    most = max(part.tokens.shape[1] for part in parts)
    missing = [most - part.tokens.shape[1] for part in parts]
    tokens = [np.pad(part.tokens, ((0, 0), (0, more), (0, 0))) for part, more in zip(parts, missing, strict=True)]
    weights = [np.pad(part.weights, ((0, 0), (0, more))) for part, more in zip(parts, missing, strict=True)]
    return LevelTokens(np.concatenate(tokens), np.concatenate(weights))
