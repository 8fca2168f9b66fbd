"""Made-up videos to put into a store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hbi_infer.index.sqlite_store import SqliteStore
from hbi_infer.index.store import FileVersion, LedgerEntry
from hbi_infer.options import EVERYTHING, Filter
from hbi_infer.tokens.layout import PackedTokens, TokenLayout
from hbi_infer.tokens.levels import LevelTokens, pooled
from hbi_infer.video.decoded_video import Clip

LAYOUT = TokenLayout((("entity", 3), ("event", 1)), 8, merged=("event",))


@dataclass(frozen=True)
class Video:
    """What `put` takes."""

    record: LedgerEntry
    clips: list[Clip]
    tokens: PackedTokens
    vectors: npt.NDArray[np.float32]


def video(path: str, num_clips: int = 2, *, seed: int = 0, **record: object) -> Video:
    rng = np.random.default_rng(seed)
    levels = {
        name: LevelTokens(
            rng.standard_normal((num_clips, size, LAYOUT.width)).astype(np.float32),
            np.full((num_clips, size), 1 / size, np.float32),
            np.tile([0, 0, -1], (num_clips, 1)) if name in LAYOUT.merged else None,
        )
        for name, size in LAYOUT.levels
    }
    times = np.array([0.0, 1.0, np.nan])
    clips = [
        Clip(
            start_seconds=2.0 * i,
            end_seconds=2.0 * i + 2,
            frames=np.zeros((3, 1, 1, 3), np.uint8),
            timestamps_seconds=times + 2 * i,
            mask=np.array([True, True, False]),
        )
        for i in range(num_clips)
    ]
    line = replace(LedgerEntry(path=path, version=FileVersion(10, 20)), **record)  # type: ignore[arg-type]
    return Video(line, clips, LAYOUT.pack(levels), pooled(levels, dict.fromkeys(levels, 1.0)))


def put(store: SqliteStore, *videos: Video) -> None:
    for item in videos:
        store.put(item.record, item.clips, item.tokens, item.vectors)


def paths(store: SqliteStore, where: Filter = EVERYTHING) -> set[str]:
    return {clip.path for clip in store.clips(store.clip_ids(where).tolist())}
