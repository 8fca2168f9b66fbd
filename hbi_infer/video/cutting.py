"""Cuts a moment out of a video into a file of its own, with its sound.

The packets are copied as they are if the moment begins at a keyframe, give or take a frame: nothing is lost, and it
takes no time. Otherwise the pictures are encoded anew as H.264, and the sound is copied. That happens in a process of
its own, for a file may crash or hang the decoder. It is confined once both files are open (see
`hbi_infer.video.sandbox`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from hbi_engines.operating_system import limit_memory
from hbi_infer.errors import InputError, VideoError
from hbi_infer.files import cannot_write, exists, fitting_name, longest_name
from hbi_infer.video.moment import Moment, Target, write_moment
from hbi_infer.video.opened_files import opened
from hbi_infer.video.packets import READ_ERRORS, in_words, open_file
from hbi_infer.video.pool import usual_memory_bytes
from hbi_infer.video.rehearsal import rehearse
from hbi_infer.video.sandbox import can_confine, confine
from hbi_infer.worker_process import Answer, Tell, WorkerDiedError, run_job

SUFFIXES = (".mp4", ".mkv")
"""Suffixes of the files that are written: mp4 where it takes the codecs, else mkv."""
ANOTHER_FOLDER = "another folder"
SILENCE_SECONDS = 120.0
"""How long a cut may go on without a sign of progress, besides the time for reading the file."""

_LEAST_BYTES_PER_SECOND = 4_000_000


@dataclass(frozen=True)
class SavedClip:
    """A file that a moment was written to.

    Attributes:
        path: Path of the file.
        is_copy: Whether the pictures are those of the video, not encoded anew.
    """

    path: Path
    is_copy: bool


def save_clip(video: Path | str, start_seconds: float, end_seconds: float, target: Path | str) -> SavedClip:
    """Writes a moment of a video to a file, whole or not at all; no file that exists is replaced.

    The first picture is the one that is shown at the start, or its neighbour if that one is a keyframe.

    Args:
        video: Path of the video.
        start_seconds: Time in the video at which the moment begins.
        end_seconds: Time at which it ends.
        target: Path of the file without its suffix, which its content decides; see `SUFFIXES`.

    Raises:
        InputError: The file exists, or cannot be written.
        VideoError: The video cannot be read.
    """
    video, target = Path(video), Path(target)
    for suffix in SUFFIXES:
        _check_new(target.with_name(target.name + suffix))
    new = target.with_name(fitting_name(f".{target.name}", f".{os.getpid()}.new", longest_name(target.parent)))
    stretch = {"start_seconds": start_seconds, "end_seconds": end_seconds}
    job = {"video": str(video), **stretch, "target": str(new), "name": str(target)}
    try:
        size_bytes = video.stat().st_size if exists(video) else 0
        answer = run_job(__name__, job, silence_seconds=SILENCE_SECONDS + size_bytes / _LEAST_BYTES_PER_SECOND)
        path = target.with_name(target.name + str(answer["suffix"]))
        _put(new, path)
    except WorkerDiedError as died:
        raise VideoError(f"{video} made the process that was to cut it die {died}: give another video") from died
    finally:
        with suppress(OSError):
            new.unlink()
    return SavedClip(path, bool(answer["is_copy"]))


def _check_new(path: Path) -> None:
    if os.path.lexists(path):
        raise InputError(f"{path} exists already and is kept: move it, or give {ANOTHER_FOLDER}")


def _put(new: Path, path: Path) -> None:
    """Gives a file its name, unless another one has it."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        new.replace(path)
    except FileExistsError:
        _check_new(path)
        raise
    except OSError as error:
        raise cannot_write(path, error, instead=ANOTHER_FOLDER) from error


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Cuts one moment in a worker process.

    Args:
        job: The video, its start and end in seconds, the file to write, and the name that it will have.
        tell: Sends a sign of progress now and then.

    Returns:
        The suffix that the file wants, and whether its pictures are copied.
    """
    av.logging.set_level(None)
    limit_memory(usual_memory_bytes(1))
    rehearse()
    video = Path(job["video"])
    file = Target(Path(job["target"]))
    try:
        with file, opened(video, open_file(video) if can_confine() else None):
            confine(may_write=True)
            moment = Moment.of(video, job["start_seconds"], job["end_seconds"], tell)
            suffix, is_copy = write_moment(moment, file, tell)
    except (VideoError, *READ_ERRORS) as error:
        if file.error:
            raise cannot_write(Path(job["name"]), file.error, instead=ANOTHER_FOLDER) from error
        raise VideoError(f"{video} {in_words(error)}: give a video that can be played") from error
    return Answer({"suffix": suffix, "is_copy": is_copy})
