"""Pictures of clips: made by worker processes, kept in memory up to a limit."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from hbi_infer.serve.media_workers import MediaWorkers
from hbi_infer.video.pool import usual_memory_bytes

WIDTHS = (160, 320, 480, 640, 960, 1280)
"""Sizes of the longer side; a request gets the next larger one, so that few kinds of a picture are kept."""

LIMIT_SECONDS = 20.0


class Thumbnails:
    """Makes and keeps pictures.

    Args:
        cache_bytes: Memory for pictures.
    """

    def __init__(self, cache_bytes: int) -> None:
        self._workers = MediaWorkers("hbi_infer.video.thumbnail", "make its picture")
        self._most_bytes, self._num_bytes = cache_bytes, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, etag: str) -> bytes | None:
        """Returns a picture that was made before."""
        with self._lock:
            if etag in self._kept:
                self._kept.move_to_end(etag)
            return self._kept.get(etag)

    def make(self, etag: str, file: Path, seconds: float, width: int) -> bytes:
        """Makes a picture and keeps it.

        Raises:
            VideoError: The file cannot be read.
        """
        if (known := self.known(etag)) is not None:  # another request was quicker
            return known
        job = {
            "path": str(file),
            "seconds": seconds,
            "longest_side": width,
            "limit_seconds": LIMIT_SECONDS,
            "memory_bytes": usual_memory_bytes(2),
        }
        _, content = self._workers.run(job, file=file, seconds=LIMIT_SECONDS + 5)
        with self._lock:
            self._kept[etag] = content
            self._num_bytes += len(content)
            while self._num_bytes > self._most_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])
        return content

    def close(self) -> None:
        """Ends the workers."""
        self._workers.close()


def width_for(asked: int) -> int:
    """Returns the size that a request gets."""
    return next((width for width in WIDTHS if width >= asked), WIDTHS[-1])


def etag_of(*parts: object) -> str:
    """Returns a name of what a picture is made of."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=12).hexdigest()
