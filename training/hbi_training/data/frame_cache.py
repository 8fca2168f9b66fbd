"""Frames of a data set, decoded once: a file of (N, F, H, W, 3) bytes that training reads without decoding again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_infer.video.pool import decode_many
from hbi_training.data.records import VideoRecord


@dataclass(frozen=True)
class Split:
    """The clips of one split and their frames."""

    records: Sequence[VideoRecord]
    cache: FrameCache


TODO, DECODED, FAILED = 0, 1, 2
WHOLE_VIDEO_SECONDS = 1e9
PRELOAD_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class FrameCache:
    """Frames and masks of N clips, in the order of their records. Filling it again continues where it was stopped."""

    def __init__(self, folder: Path, records: Sequence[VideoRecord], sampling: FrameSampling) -> None:
        self.records, self.sampling = records, sampling
        self.folder = folder / _key(records, sampling)
        self.folder.mkdir(parents=True, exist_ok=True)
        size = sampling.image_size
        self._frames = self._array("frames.npy", (len(records), sampling.max_frames, size, size, 3), np.uint8)
        self._mask = self._array("mask.npy", (len(records), sampling.max_frames), np.bool_)
        self._state = self._array("state.npy", (len(records),), np.uint8)

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        path = self.folder / name
        # Made under another name: a run that is killed leaves no half of it, and another process never sees one.
        partial = path.with_name(f"{name}.{os.getpid()}.partial")
        try:
            if not path.exists():
                np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
                # Pages of a mapped file that find no room on the disk kill the process: it is taken beforehand.
                with partial.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
                if not path.exists():
                    partial.rename(path)
        except OSError as error:
            size = math.prod(shape) * np.dtype(dtype).itemsize / 2**30
            raise DataError(
                f"cannot make {path}, {size:.1f} GiB for the decoded frames: {error.strerror}; make room there, or "
                "link its folder to another disk"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return np.lib.format.open_memmap(path, mode="r+")

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """(B, F, H, W, 3) uint8 and (B, F) bool of some clips."""
        return self._frames[rows], self._mask[rows]

    def preload(self) -> None:
        """Reads the frames into memory if half of it holds them: random reads of a mapped file wait for the disk."""
        if isinstance(self._frames, np.memmap) and self._frames.nbytes <= PRELOAD_BYTES:
            self._frames = np.array(self._frames)

    @property
    def decoded(self) -> npt.NDArray[np.intp]:
        """The clips that could be decoded."""
        return np.flatnonzero(self._state == DECODED)

    def fill(self, *, workers: int | None = None, advance: Callable[[int], None] = lambda _: None) -> dict[str, str]:
        """Decodes what is missing.

        Args:
            workers: Decoding processes; None for one a core.
            advance: Called with the number of clips that have just been dealt with.

        Returns:
            The files that could not be decoded, now or before, with the reasons.

        Raises:
            DataError: Not one clip could be decoded.
        """
        reasons = self.folder / "failures.json"
        failures: dict[str, str] = json.loads(reasons.read_text()) if reasons.exists() else {}
        missing: list[int] = np.flatnonzero(self._state == TODO).tolist()
        advance(len(self.records) - len(missing))
        # A record's end is the length of its one clip, so records of one end are decoded together.
        for clip_seconds, rows in groupby(sorted(missing, key=self._clip_seconds), key=self._clip_seconds):
            rows_of: dict[Path, list[int]] = {}
            for row in rows:
                rows_of.setdefault(self.records[row].video, []).append(row)
            sampling = replace(self.sampling, clip_seconds=clip_seconds)
            for video in decode_many(list(rows_of), sampling, workers=workers):
                for row in rows_of[video.path]:
                    if video.clips:
                        self._frames[row], self._mask[row] = video.clips[0].frames, video.clips[0].mask
                    self._state[row] = DECODED if video.clips else FAILED
                if not video.clips:
                    failures[str(video.path)] = video.reason
                    reasons.write_text(json.dumps(failures))
                advance(len(rows_of[video.path]))
        if not len(self.decoded):
            path, reason = next(iter(failures.items()))
            raise DataError(f"none of {len(self.records)} videos could be decoded; the first: {path}: {reason}")
        return failures

    def _clip_seconds(self, row: int) -> float:
        return self.records[row].end_seconds or WHOLE_VIDEO_SECONDS


def _key(records: Sequence[VideoRecord], sampling: FrameSampling) -> str:
    """Names a cache by all that its content hangs on: the files, their sizes and times, and the sampling."""
    digest = hashlib.sha256(json.dumps(asdict(sampling), sort_keys=True).encode())
    for record in records:
        stat = record.video.stat()
        line = (str(record.video), stat.st_size, stat.st_mtime_ns, record.end_seconds)
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]
