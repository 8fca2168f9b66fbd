"""The background of an index, kept in it: what the best scores of neutral sentences among its clips are like.

It is computed when it is first needed, from a sample of the clips, and again once a tenth of the clips have changed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hbi_infer.errors import IndexStoreError, InputError
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.model.neutral_texts import neutral_tokens
from hbi_infer.options import EVERYTHING
from hbi_infer.tokens.background import Background, sample
from hbi_infer.tokens.levels import some

VERSION = 1
"""Version of the sentences and of what is computed of them; a background of another one is computed again."""

TEXTS_AT_ONCE = 64
"""Number of sentences that are scored in one product: its result takes some 16 MB."""

MOST_CHANGED = 0.1
"""Largest share of the clips that may have come or gone before the background is computed again."""


@dataclass(frozen=True)
class _Kept:
    """A background with what it is of: the number of clips at that time and the last one's id."""

    num_clips: int
    last_clip: int
    background: Background

    def to_text(self) -> str:
        return json.dumps(
            {"version": VERSION, "clips": self.num_clips, "last": self.last_clip, **self.background.to_json()}
        )

    @classmethod
    def from_text(cls, text: str) -> _Kept | None:
        """Reads what `to_text` returned; None if it is of another version, or something else."""
        try:
            document: dict[str, Any] = json.loads(text)
            if document["version"] != VERSION:
                return None
            return cls(int(document["clips"]), int(document["last"]), Background.from_json(document))
        except (ValueError, TypeError, KeyError, InputError):
            return None


def background_of(index: FolderIndex) -> Background | None:
    """Returns the background of an index; None if it has no clips.

    Raises:
        BundleError: The bundle's neutral sentences cannot be read.
        IndexStoreError: The index is damaged.
    """
    text = index.store.background()
    kept = _kept_from(text) if text is not None else None
    if kept is None or _has_changed(index, kept):
        kept = _computed(index)
        if kept is not None and not index.store.is_read_only:
            with suppress(IndexStoreError):  # it can be computed again
                index.store.keep_background(kept.to_text())
    return kept.background if kept else None


@lru_cache(maxsize=8)
def _kept_from(text: str) -> _Kept | None:
    """Reads a background once: each search asks for it."""
    return _Kept.from_text(text)


def _has_changed(index: FolderIndex, kept: _Kept) -> bool:
    new = index.store.num_clips_after(kept.last_clip)
    gone = kept.num_clips + new - index.store.num_clips()
    return new + gone > MOST_CHANGED * kept.num_clips


def _computed(index: FolderIndex) -> _Kept | None:
    ids = index.store.clip_ids(EVERYTHING)
    if not len(ids):
        return None
    matrix = index.matrix(ids[sample(len(ids))])
    texts = neutral_tokens(index.encoder)
    num_texts = len(next(iter(texts.values())))
    blocks = [some(texts, slice(start, start + TEXTS_AT_ONCE)) for start in range(0, num_texts, TEXTS_AT_ONCE)]
    scores = np.concatenate([matrix.score_all(block) for block in blocks])
    return _Kept(len(ids), int(ids[-1]), Background.of(scores))
