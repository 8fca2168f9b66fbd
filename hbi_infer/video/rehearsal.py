"""A decoder's rehearsal: it decodes a video and a picture of its own, before it is confined and gets a real one.

Libraries load parts of themselves when these are first needed, and a process that is confined cannot open their files.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

import av
import numpy as np

from hbi_engines.operating_system import memory_file
from hbi_infer.options import FrameSampling
from hbi_infer.video.opened_files import opened
from hbi_infer.video.reader import decode
from hbi_infer.video.sandbox import can_confine

_SIDE = 16
_VIDEO, _PHOTO = Path("rehearsal.mov"), Path("rehearsal.png")


def rehearse(*, with_photo: bool = False) -> None:
    """Loads what decoding needs, where this process can be confined.

    Args:
        with_photo: Whether a picture is to be decoded.
    """
    if not can_confine():
        return
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", "datasets")):
            importlib.import_module(module.name)
    sampling = FrameSampling(image_size=_SIDE)
    descriptor = memory_file("rehearsal")
    _write_video(descriptor)
    with opened(_VIDEO, descriptor):
        decode(_VIDEO, sampling)
    if with_photo:
        _read_photo(sampling)


def _write_video(descriptor: int) -> None:
    """Writes a video of two grey frames."""
    with os.fdopen(os.dup(descriptor), "wb") as file, av.open(file, "w", format="mov") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width = stream.height = _SIDE
        frame = av.VideoFrame.from_ndarray(np.full((_SIDE, _SIDE, 3), 128, np.uint8), format="rgb24")
        for packet in (*stream.encode(frame), *stream.encode(frame), *stream.encode(None)):
            out.mux(packet)


def _read_photo(sampling: FrameSampling) -> None:
    """Writes and reads a grey picture."""
    from PIL import Image

    from hbi_infer.video.photo import read_photo

    Image.init()
    descriptor = memory_file("rehearsal")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        Image.new("RGB", (_SIDE, _SIDE)).save(file, "PNG")
    with opened(_PHOTO, descriptor):
        read_photo(_PHOTO, sampling)
