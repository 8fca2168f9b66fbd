"""Makes up tokens on which pooled vectors do not find everything: an index to search, and queries for it.

They are hard for the same reason as real embeddings: all tokens share a direction (they lie in a cone), clips come in
topics with many neighbours each, and a query speaks of one of the things that a clip shows, which the pooled vector
mixes with the others. More clips are more topics and more things, so that a larger index is no easier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hbi_infer.api import Index
from hbi_infer.index.sqlite_file import Identity
from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import FileVersion, LedgerEntry
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.encoder import token_layout
from hbi_infer.model.manifest import BundleManifest, LevelSpec, Provenance, TokenizerSpec
from hbi_infer.model.tokenizer import TokenBatch, Tokenizer, clip_tokenizer_json
from hbi_infer.options import FrameSampling
from hbi_infer.tokens.levels import Levels, LevelTokens, unit
from hbi_infer.tokens.scoring import Scoring
from hbi_infer.video.decoded_video import Clip

LEVELS = (
    LevelSpec("entity", video_tokens=12, text_tokens=16, rate=1.0),
    LevelSpec("action", video_tokens=3, text_tokens=4, rate=0.5),
    LevelSpec("event", video_tokens=2, text_tokens=2, rate=0.5),
)
CLIPS_PER_VIDEO = 10
CLIP_SECONDS = 12.0
CLIPS_PER_TOPIC = 50
THINGS_PER_TOPIC = 100
NEW_THINGS_PER_TOPIC = 25
THINGS_PER_CLIP = 3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SyntheticEncoder:
    """Encoder of an index of made-up tokens: a manifest, and queries that were made beforehand."""

    width: int
    queries: Sequence[Levels]

    @property
    def bundle(self) -> Bundle:
        """A bundle without graphs."""
        manifest = BundleManifest(
            name="synthetic",
            notice="",
            width=self.width,
            max_words=LEVELS[0].text_tokens,
            vocabulary_size=1,
            sampling=FrameSampling(),
            levels=LEVELS,
            padded_partner="ignore",
            logit_scale=1.0,
            tasks=(),
            tokenizer=TokenizerSpec(),
            graphs={},
            provenance=Provenance(recipe="", data="", seed=0, code_version=""),
        )
        return Bundle(Path(), manifest, "0" * 64)

    @property
    def scoring(self) -> Scoring:
        """The rates of the levels."""
        return self.bundle.manifest.scoring

    @property
    def tokenizer(self) -> Tokenizer:
        """A tokenizer of few words: the tokens of queries stand for no word."""
        return Tokenizer.from_json(clip_tokenizer_json(["query"]))

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the numbers of B texts "query 0", "query 1", ... as their only tokens; any other text has one too."""
        numbers = [text.removeprefix("query ") for text in texts]
        ids = np.array(
            [[int(number) if number.isdigit() else len(number) % len(self.queries)] for number in numbers], np.int64
        )
        return TokenBatch(ids, np.ones(ids.shape, np.bool_), (None,) * len(texts))

    def encode_tokens(self, batch: TokenBatch) -> Levels:
        """Returns the tokens of B queries that were made beforehand."""
        found = [self.queries[number] for number in batch.ids[:, 0]]
        return {
            level.name: LevelTokens(
                np.concatenate([item[level.name].tokens for item in found]),
                np.concatenate([item[level.name].weights for item in found]),
            )
            for level in LEVELS
        }

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        """Raises NotImplementedError: there are no videos, so no frames (B, F, H, W, 3)."""
        raise NotImplementedError


class SyntheticWorld:
    """Directions that clips and queries are made of.

    Args:
        width: Width D.
        num_topics: Number of topics of the clips.
        seed: Random seed; the same seed gives the same world, clips and queries.
    """

    def __init__(self, width: int, num_topics: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.width = width
        self._common = self._directions(1)
        self._text_common = self._directions(1)
        self._topics = self._directions(num_topics)
        self._things = self._directions(num_topics * NEW_THINGS_PER_TOPIC + THINGS_PER_TOPIC)
        self._stop_words = self._directions(20)

    def clips(self, topics: npt.NDArray[np.int64]) -> tuple[Levels, npt.NDArray[np.int64]]:
        """Returns the tokens of B clips of these topics (B,), and the things (B, 3) that each shows in turn."""
        # The clips of a topic share its things; neighbouring topics have some of them in common.
        own = self._rng.integers(0, THINGS_PER_TOPIC, (len(topics), THINGS_PER_CLIP))
        things = topics[:, None] * NEW_THINGS_PER_TOPIC + own
        levels = {}
        for level in LEVELS:
            shown = np.arange(level.video_tokens) * THINGS_PER_CLIP // level.video_tokens
            # (B, V, D)
            tokens = (
                1.0 * self._common
                + 0.6 * self._topics[topics][:, None]
                + 1.0 * self._things[things[:, shown]]
                + 0.6 * self._directions(len(topics), level.video_tokens)
            )
            levels[level.name] = LevelTokens(tokens.astype(np.float32), self._weights(len(topics), level.video_tokens))
        return levels, things

    def query(self, topic: int, thing: int) -> Levels:
        """Returns the tokens (1, T, D) of a text about one thing, among many words that every text has."""
        levels = {}
        for level in LEVELS:
            tokens = self._text_common + self._stop_words[self._rng.integers(0, 20, level.text_tokens)]
            about = max(1, level.text_tokens // 4)
            tokens[:about] = 0.5 * self._text_common + self._things[thing] + 0.5 * self._topics[topic]
            tokens += 0.6 * self._directions(level.text_tokens)
            salience = np.where(np.arange(level.text_tokens) < about, np.float32(2), np.float32(0))
            weights = self._weights(1, level.text_tokens, salience)
            levels[level.name] = LevelTokens(tokens[None].astype(np.float32), weights)
        return levels

    def _directions(self, *shape: int) -> Floats:
        return unit(self._rng.standard_normal((*shape, self.width), dtype=np.float32))

    def _weights(self, batch: int, num_tokens: int, salience: Floats | float = 0.0) -> Floats:
        weights = np.exp(salience + self._rng.standard_normal((batch, num_tokens), dtype=np.float32))
        return weights / weights.sum(axis=1, keepdims=True)


def make_index(folder: Path, num_clips: int, *, width: int = 256, num_queries: int = 100) -> Index:
    """Makes an index of `num_clips` clips in `folder`, ten a video, whose encoder knows the texts query 0, 1, ..."""
    num_topics = max(1, num_clips // CLIPS_PER_TOPIC)
    world = SyntheticWorld(width, num_topics)
    rng = np.random.default_rng(1)
    queries: list[Levels] = []
    encoder = SyntheticEncoder(width, queries)
    store = _open_store(folder, encoder)
    for number, topics in enumerate(_topics_of_videos(rng, num_clips, num_topics)):
        levels, things = world.clips(topics)
        if len(queries) < num_queries:
            queries.append(world.query(int(topics[0]), int(things[0, 0])))
        record = LedgerEntry(path=f"{number}.mp4", version=FileVersion(1, 1), duration_seconds=120.0)
        store.put(record, _clips(len(topics)), store.layout.pack(levels), encoder.scoring.pooled(levels))
    arrays = {
        f"{level.name}_{part}": np.concatenate([getattr(query[level.name], part) for query in queries])
        for level in LEVELS
        for part in ("tokens", "weights")
    }
    np.savez(folder / "queries.npz", **arrays)
    return Index(folder, encoder, store)


def open_index(folder: Path) -> Index:
    """Opens the index that `make_index` made in `folder`."""
    with np.load(folder / "queries.npz") as arrays:
        levels = {
            level.name: LevelTokens(arrays[f"{level.name}_tokens"], arrays[f"{level.name}_weights"]) for level in LEVELS
        }
    num_queries, _, width = levels[LEVELS[0].name].tokens.shape
    queries = [
        {name: LevelTokens(level.tokens[[row]], level.weights[[row]]) for name, level in levels.items()}
        for row in range(num_queries)
    ]
    encoder = SyntheticEncoder(width, queries)
    return Index(folder, encoder, _open_store(folder, encoder))


def _open_store(folder: Path, encoder: SyntheticEncoder) -> SqliteStore:
    identity = Identity(encoder.bundle.sha256, token_layout(encoder), folder)
    return SqliteStore(folder / "index.sqlite", identity)


def _topics_of_videos(rng: np.random.Generator, num_clips: int, num_topics: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, num_clips, CLIPS_PER_VIDEO):
        size = min(CLIPS_PER_VIDEO, num_clips - start)
        yield np.full(size, rng.integers(num_topics))


def _clips(num_clips: int) -> list[Clip]:
    frames = np.empty((0, 0, 0, 3), np.uint8)  # not kept
    mask = np.ones(LEVELS[0].video_tokens, np.bool_)
    return [
        Clip(
            start_seconds=CLIP_SECONDS * number,
            end_seconds=CLIP_SECONDS * (number + 1),
            frames=frames,
            timestamps_seconds=CLIP_SECONDS * number + np.arange(LEVELS[0].video_tokens, dtype=np.float64),
            mask=mask,
        )
        for number in range(num_clips)
    ]
