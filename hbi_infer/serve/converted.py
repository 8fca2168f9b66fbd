"""Videos that were converted for browsers, and moments that were cut, as open files without a name.

A file without a name is gone with the process that has it open, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import platformdirs

from hbi_infer.errors import InputError, VideoError
from hbi_infer.serve.job_queue import Job
from hbi_infer.video.cutting import save_clip
from hbi_infer.worker_process import WorkerDiedError, run_job

SILENCE_SECONDS = 60.0
"""How long a conversion may go on without a sign of progress."""


class Converted:
    """Converts videos, and keeps them. One thread uses it at a time.

    Args:
        most_bytes: Disk space for converted videos.
        most_seconds: Duration of the longest video that is encoded anew.
    """

    def __init__(self, most_bytes: int, most_seconds: float) -> None:
        self._most_bytes, self._most_seconds, self._num_bytes = most_bytes, most_seconds, 0
        self._kept: OrderedDict[str, int] = OrderedDict()

    def open(self, key: str, file: Path, job: Job) -> int:
        """Returns a descriptor of a video as MP4 that browsers play; it is converted where it was not before.

        Args:
            key: Name of the video and its version.
            file: The video.
            job: The request that wants it.

        Raises:
            VideoError: It cannot be converted, or is too long.
            GivenUpError: Nobody wants it any more.
        """
        if key not in self._kept:
            self._keep(key, self._convert(file, job))
        self._kept.move_to_end(key)
        return os.dup(self._kept[key])

    def _convert(self, file: Path, job: Job) -> int:
        with _folder() as folder:
            target = folder / "converted.mp4"

            def on_part(_part: object) -> None:
                job.check()
                if target.stat().st_size > self._most_bytes:
                    raise VideoError("the video takes more space than there is for converted ones: take a moment of it")

            asked = {"path": str(file), "target": str(target), "most_seconds": self._most_seconds}
            try:
                run_job("hbi_infer.video.conversion", asked, on_part=on_part, silence_seconds=SILENCE_SECONDS)
            except WorkerDiedError as died:
                raise VideoError(f"the video made the process die that was to convert it ({died.cause})") from died
            return os.open(target, os.O_RDONLY)

    def _keep(self, key: str, descriptor: int) -> None:
        self._kept[key] = descriptor
        self._num_bytes += os.fstat(descriptor).st_size
        while self._num_bytes > self._most_bytes and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._num_bytes -= os.fstat(old).st_size
            os.close(old)

    def close(self) -> None:
        """Forgets all files."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()


def cut_moment(file: Path, start_seconds: float, end_seconds: float) -> tuple[int, str]:
    """Cuts a moment out of a video.

    Args:
        file: The video.
        start_seconds: Time in the video at which the moment begins.
        end_seconds: Time at which it ends.

    Returns:
        A descriptor of the moment, and the suffix that fits it.

    Raises:
        VideoError: The video cannot be read.
    """
    with _folder() as folder:
        try:
            saved = save_clip(file, start_seconds, end_seconds, folder / "moment")
        except VideoError:
            raise
        except InputError as error:
            raise VideoError(f"the moment cannot be cut: {error}") from error
        return os.open(saved.path, os.O_RDONLY), saved.path.suffix


class _folder(tempfile.TemporaryDirectory[str]):  # noqa: N801 - used as a function
    """A folder of its own in the user's cache folder, gone at the end of the block."""

    def __init__(self) -> None:
        place = platformdirs.user_cache_path("hbi-infer") / "converted"
        place.mkdir(parents=True, exist_ok=True)
        super().__init__(dir=place)

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())
