"""Frames of a data set, decoded once into a file of (N, F, H, W, 3) bytes that training reads, and their times."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.operating_system import is_ours, memory_bytes, reserve
from hbi_infer.errors import DataError
from hbi_infer.options import FrameSampling
from hbi_infer.video.pool import decode_many
from hbi_infer.video.sampling import Stretch
from hbi_training.data.records import VideoRecord


@dataclass(frozen=True)
class Split:
    """Clips of one split and their frames."""

    records: Sequence[VideoRecord]
    cache: FrameCache


TODO, DECODED, FAILED = 0, 1, 2
LAYOUT = 2
"""Changes with the arrays that a cache holds, so that one of an older version is not taken for a whole one."""
WAITING_SECONDS = 0.1
"""Pause between two looks whether another process has finished."""
PRELOAD_BYTES = (memory_bytes() or 0) // 2


class FrameCache:
    """Frames, masks and times of N clips, in the order of their records; filling it again resumes where it stopped.

    Of several processes that fill it, such as those of one training, one decodes and the others wait for it.
    """

    def __init__(self, folder: Path | str, records: Sequence[VideoRecord], sampling: FrameSampling) -> None:
        folder = Path(folder)
        self.records, self.sampling = records, sampling
        self.folder = folder / _key(records, sampling)
        self.folder.mkdir(parents=True, exist_ok=True)
        size = sampling.image_size
        with self._alone():
            self._frames = self._array("frames.npy", (len(records), sampling.max_frames, size, size, 3), np.uint8)
            self._mask = self._array("mask.npy", (len(records), sampling.max_frames), np.bool_)
            self._timestamps = self._array("timestamps.npy", (len(records), sampling.max_frames), np.float64)
            self._state = self._array("state.npy", (len(records),), np.uint8)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other process changes the cache, and keeps others out of the block."""
        with (self.folder / "lock").open("ab") as file:
            while not is_ours(file):
                time.sleep(WAITING_SECONDS)
            yield

    def _array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        path = self.folder / name
        # Another name until it is complete: a killed run leaves no partial file.
        partial = path.with_name(f"{name}.partial")
        try:
            if not path.exists():
                np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
                # A full disk would kill the process when it writes to the mapping, so space is allocated first.
                with partial.open("r+b") as file:
                    reserve(file, partial.stat().st_size)
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
        """Returns frames (B, F, H, W, 3) uint8 and masks (B, F) bool of the clips in rows (B,) int64."""
        return self._frames[rows], self._mask[rows]

    def timestamps_seconds(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Returns the times (B, F) float64 of the frames of the clips in rows (B,) int64; nan where masked."""
        return self._timestamps[rows]

    def preload(self) -> None:
        """Reads the frames into memory if they fit into half of it, for random reads of a mapped file are slow."""
        if isinstance(self._frames, np.memmap) and self._frames.nbytes <= PRELOAD_BYTES:
            self._frames = np.array(self._frames)

    @property
    def decoded(self) -> npt.NDArray[np.intp]:
        """Rows of the clips that could be decoded, (N,) int64."""
        return np.flatnonzero(self._state == DECODED)

    def fill(self, *, workers: int | None = None, advance: Callable[[int], None] = lambda _: None) -> dict[str, str]:
        """Decodes the clips that are missing.

        Args:
            workers: Number of decoding processes; None for one per core.
            advance: Callback for the number of clips just handled.

        Returns:
            Files that could not be decoded, now or before, with the reasons.

        Raises:
            DataError: No clip could be decoded.
        """
        with self._alone():
            failures = self._fill(workers, advance)
        if not len(self.decoded):
            path, reason = next(iter(failures.items()))
            raise DataError(f"none of {len(self.records)} videos could be decoded; the first: {path}: {reason}")
        return failures

    def _fill(self, workers: int | None, advance: Callable[[int], None]) -> dict[str, str]:
        """Decodes the clips that are missing, and returns the reasons of those that could not be decoded."""
        reasons = self.folder / "failures.json"
        failures: dict[str, str] = json.loads(reasons.read_text()) if reasons.exists() else {}
        missing: list[int] = np.flatnonzero(self._state == TODO).tolist()
        advance(len(self.records) - len(missing))
        rows_of: dict[tuple[Path, Stretch], list[int]] = {}
        for row in missing:
            rows_of.setdefault((self.records[row].video, self.records[row].stretch), []).append(row)
        for video in decode_many(list(rows_of), self.sampling, workers=workers):
            assert video.stretch is not None
            rows = rows_of[video.path, video.stretch]
            for row in rows:
                if video.clips:
                    clip = video.clips[0]
                    self._frames[row], self._mask[row] = clip.frames, clip.mask
                    self._timestamps[row] = clip.timestamps_seconds
                self._state[row] = DECODED if video.clips else FAILED
            if not video.clips:
                failures[self.records[rows[0]].name] = video.reason
                partial = reasons.with_name("failures.json.partial")
                partial.write_text(json.dumps(failures))
                partial.replace(reasons)
            advance(len(rows))
        return failures


def _key(records: Sequence[VideoRecord], sampling: FrameSampling) -> str:
    """Returns the name of a cache: a hash of all that determines it (files, their sizes and times, sampling)."""
    digest = hashlib.sha256(json.dumps([LAYOUT, asdict(sampling)], sort_keys=True).encode())
    for record in records:
        stat = record.video.stat()
        line = (str(record.video), stat.st_size, stat.st_mtime_ns, record.start_seconds, record.end_seconds)
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]
