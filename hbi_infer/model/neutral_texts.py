"""Sentences that know nothing of a folder, and their tokens: what a query's score is compared with.

A bundle may bring sentences of its own world, in a text file with a line for each. For any other one there are 256
sentences about everyday scenes. They are encoded when they are first needed: an index keeps what it computes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from hbi_infer.errors import BundleError, ExportError
from hbi_infer.model.encoder import Encoder
from hbi_infer.tokens.levels import Levels, LevelTokens

if TYPE_CHECKING:
    from hbi_infer.model.bundle import Bundle

TEXTS_AT_A_TIME = 32
MOST_TEXTS = 4096
"""Largest number of sentences that a bundle may bring: far more than a background needs."""
MOST_LETTERS = 2000
"""Largest length of a sentence."""


def neutral_sentences() -> list[str]:
    """Returns sentences about everyday scenes, each about another one."""
    path = resources.files("hbi_infer").joinpath("data/neutral_sentences.txt")
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def neutral_tokens(encoder: Encoder) -> Levels:
    """Computes the tokens of J neutral sentences, (J, T, D) at each level: those of the bundle, or of everyday scenes.

    Raises:
        BundleError: The bundle's file is not the one that was exported, or makes no sense.
    """
    has_own = encoder.bundle.manifest.background is not None
    return encoded_texts(encoder, _texts_of(encoder.bundle) if has_own else neutral_sentences())


def encoded_texts(encoder: Encoder, texts: Sequence[str]) -> Levels:
    """Computes the tokens of J texts, some at a time; one that is too long is cut."""
    parts = [
        encoder.encode_tokens(encoder.tokenize(texts[start : start + TEXTS_AT_A_TIME]))
        for start in range(0, len(texts), TEXTS_AT_A_TIME)
    ]
    return {name: _side_by_side([part[name] for part in parts]) for name in parts[0]}


def background_file(texts: Sequence[str]) -> bytes:
    """Returns neutral sentences as a bundle's file.

    Raises:
        ExportError: There is none or there are too many, or one is blank or has several lines.
    """
    if fault := _fault(texts):
        raise ExportError(f"the neutral sentences {fault}")
    return "".join(f"{text}\n" for text in texts).encode()


def _texts_of(bundle: Bundle) -> list[str]:
    """Reads the neutral sentences of a bundle."""
    where = f"the background of {bundle.path}"
    try:
        texts = bundle.background_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{where} is not UTF-8 (byte {error.start:,}): export the bundle again") from error
    if fault := _fault(texts):
        raise BundleError(f"{where} {fault}: export the bundle again")
    return texts


def _fault(texts: Sequence[str]) -> str:
    if not 1 <= len(texts) <= MOST_TEXTS:
        return f"are {len(texts)}; there may be 1 to {MOST_TEXTS:,}"
    wrong = next(
        (text for text in texts if not text.strip() or not text.isprintable() or len(text) > MOST_LETTERS), None
    )
    return "" if wrong is None else f"hold {wrong!r:.80}; each is a line of 1 to {MOST_LETTERS:,} letters"


def _side_by_side(parts: list[LevelTokens]) -> LevelTokens:
    """Joins batches (B, T, D) of a level whose numbers of tokens differ: shorter ones are padded."""
    most = max(part.tokens.shape[1] for part in parts)
    missing = [most - part.tokens.shape[1] for part in parts]
    tokens = [np.pad(part.tokens, ((0, 0), (0, more), (0, 0))) for part, more in zip(parts, missing, strict=True)]
    weights = [np.pad(part.weights, ((0, 0), (0, more))) for part, more in zip(parts, missing, strict=True)]
    return LevelTokens(np.concatenate(tokens), np.concatenate(weights))
