"""The records of an index, and the protocol of the stores that keep them.

`hbi_infer.index.sqlite_store` is the embedded store. A store computes no scores: it offers candidates, and
`hbi_infer.tasks.search` scores them exactly, in the same way for every store.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_infer.options import Filter

if TYPE_CHECKING:
    from hbi_infer.tokens.layout import PackedTokens, TokenLayout
    from hbi_infer.video.decoded_video import Problem

ClipIds: TypeAlias = npt.NDArray[np.int64]
Status: TypeAlias = Literal["ok", "partial", "failed"]


@dataclass(frozen=True)
class FileVersion:
    """The state of a file: another value once the file has changed.

    Attributes:
        size_bytes: Size of the file.
        modified_ns: Time of the last change, in nanoseconds since 1970.
    """

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion | None:
        """Returns the version of a file as it is now; None if it is gone or cannot be looked at."""
        try:
            status = path.stat()
        except (OSError, ValueError):  # the last for a name that no file can have
            return None
        return cls(status.st_size, status.st_mtime_ns)

    def __str__(self) -> str:
        return f"{self.size_bytes} {self.modified_ns}"


@dataclass(frozen=True)
class ContentMark:
    """A mark of a file's content.

    Attributes:
        digest: Hash of the file's head and tail.
        status_ns: Time of the last change of anything about the file, its name among them, when the hash was read.
    """

    digest: bytes
    status_ns: int


NO_VERSION = FileVersion(0, 0)
"""Version in the ledger of a file that could not be looked at."""


@dataclass(frozen=True)
class VideoFault:
    """Fault of a video that cannot be indexed, or only in part, or of a folder that cannot be read.

    Attributes:
        path: Path relative to the indexed folder.
        reason: Description of the fault, to be read after the path.
        problem: Kind of fault.
    """

    path: str
    reason: str
    problem: Problem | None

    def to_json(self) -> dict[str, str]:
        """Returns the path and the reason for JSON."""
        return {"path": self.path, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One file of the ledger.

    Attributes:
        path: Path relative to the folder, with "/" between its parts.
        version: The file as it was when it was indexed.
        status: Outcome of decoding the file; a failed one has no clips.
        reason: Description of the fault; empty when there is none.
        problem: Kind of fault; None when there is none.
        duration_seconds: Duration of the video; None when not known.
        mark: Mark of the file's content; None if it was not read yet.
    """

    path: str
    version: FileVersion
    status: Status = "ok"
    reason: str = ""
    problem: Problem | None = None
    duration_seconds: float | None = None
    mark: ContentMark | None = None

    @property
    def fault(self) -> VideoFault:
        """Fault of a file that failed or is indexed in part."""
        return VideoFault(self.path, self.reason, self.problem)

    def has_changed(self, path: Path) -> bool:
        """Returns whether the file at `path` is another than the one indexed; one that is gone has not changed."""
        return FileVersion.of(path) not in (None, self.version)


@dataclass(frozen=True)
class Move:
    """A file that holds what another one held when it was indexed.

    Attributes:
        source: Path of the other one in the ledger.
        entry: Entry of the file.
        is_copy: Whether the other one keeps its tokens.
    """

    source: str
    entry: LedgerEntry
    is_copy: bool


@dataclass(frozen=True, kw_only=True)
class StoredClip:
    """One clip without its tokens.

    Attributes:
        clip_id: Identifier of the clip, never used again for another one.
        path: Path of the video, relative to the folder.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        frame_seconds: (F,) float64, the time of each frame in the video; nan where there is none.
        video_seconds: Duration of the video, None when not known.
    """

    clip_id: int
    path: str
    start_seconds: float
    end_seconds: float
    frame_seconds: npt.NDArray[np.float64]
    video_seconds: float | None


class TokenStore(Protocol):
    """Clips with their tokens, to be searched."""

    @property
    def layout(self) -> TokenLayout:
        """Layout of the records that `fetch_tokens` returns."""

    def version(self) -> Hashable:
        """Returns another value after every change, whichever process made it."""

    def num_clips(self) -> int:
        """Returns the number of clips."""

    def clip_ids(self, where: Filter) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips whose video passes the filter."""

    def clip_ids_of(self, path: str) -> ClipIds:
        """Returns the ids (N,), ascending, of the clips of one video."""

    def candidates(
        self, pooled_query: npt.NDArray[np.float32], where: Filter, k: int
    ) -> tuple[ClipIds, npt.NDArray[np.float32]]:
        """Finds the K clips (or fewer) whose pooled vectors are nearest to the query's.

        Args:
            pooled_query: (D,) unit vector.
            where: Only clips of videos that pass.
            k: Largest number of clips.

        Returns:
            Ids (K,) and cosines (K,), best first.
        """

    def fetch_tokens(self, ids: ClipIds) -> tuple[ClipIds, PackedTokens]:
        """Returns ids (B,), ascending, and records (B,) of those of the clips that are still stored."""

    def clips(self, ids: Sequence[int]) -> list[StoredClip]:
        """Returns those of the N clips that are still stored, in the order of `ids`."""
