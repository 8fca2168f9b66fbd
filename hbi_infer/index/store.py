"""What an index keeps, and what any store of it must offer to be searched.

The embedded store is `hbi_infer.index.sqlite_store`. Scores are never a store's business: it offers candidates, and
`hbi_infer.tasks.search` rescores them exactly, in the same way for every store.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hbi_infer.tokens.layout import PackedTokens, TokenLayout

ClipIds: TypeAlias = npt.NDArray[np.int64]
Status: TypeAlias = Literal["ok", "partial", "failed"]


@dataclass(frozen=True, kw_only=True)
class VideoRecord:
    """One file of the ledger.

    Attributes:
        path: Relative to the folder, with "/" between its parts.
        size_bytes: With `modified_ns`, tells whether the file has changed.
        modified_ns: Time of the last change, in nanoseconds since 1970.
        status: What became of decoding it; a failed one has no clips.
        reason: What was wrong; empty when nothing was.
        duration_seconds: None when not known.
    """

    path: str
    size_bytes: int
    modified_ns: int
    status: Status = "ok"
    reason: str = ""
    duration_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StoredClip:
    """One clip without its tokens.

    Attributes:
        clip_id: Names the clip; never used again for another one.
        path: Of its video, relative to the folder.
        start_seconds: Where in the video it begins.
        end_seconds: Where it ends.
        frame_seconds: (F,) float64, the time of each frame in the video; nan where there is none.
        video_seconds: Duration of the video, None when not known.
    """

    clip_id: int
    path: str
    start_seconds: float
    end_seconds: float
    frame_seconds: npt.NDArray[np.float64]
    video_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which videos to search. All that is given must hold; nothing given, every video.

    Attributes:
        path_glob: Pattern of the path relative to the folder, with `*` (also over "/"), `?` and `[...]`.
        folder: Only videos in this folder or below it, relative to the indexed one.
        min_seconds: Least duration of the video.
        max_seconds: Greatest duration of the video.
        newer_than: Only files changed at this time or later. Local time if it has no time zone.
        older_than: Only files changed before this time.
    """

    path_glob: str | None = None
    folder: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    newer_than: datetime | None = None
    older_than: datetime | None = None


EVERYTHING = Filter()


class TokenStore(Protocol):
    """Clips with their tokens, to be searched."""

    @property
    def layout(self) -> TokenLayout:
        """Of the records that `fetch_tokens` gives."""

    def version(self) -> Hashable:
        """Another value after every change, by whichever process."""

    def num_clips(self) -> int:
        """How many clips are stored."""

    def clip_ids(self, where: Filter) -> ClipIds:
        """(N,) ids, ascending, of the clips whose video passes the filter."""

    def clip_ids_of(self, path: str) -> ClipIds:
        """(N,) ids, ascending, of the clips of one video."""

    def candidates(
        self, pooled_query: npt.NDArray[np.float32], where: Filter, k: int
    ) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """The k clips (or fewer) with the pooled vector nearest to the query's, and their cosines (k,), best first.

        Args:
            pooled_query: (D,) unit vector.
            where: Only clips of videos that pass.
            k: How many.
        """

    def fetch_tokens(self, ids: ClipIds) -> tuple[ClipIds, PackedTokens]:
        """Ids, ascending, and tokens (B,) of those of the clips that are (still) stored."""

    def clips(self, ids: Sequence[int]) -> list[StoredClip]:
        """Those of the clips that are (still) stored, in the order of `ids`."""
