"""Reading videos: `decode`, `decode_many`, `probe`, `read_frames`, and `find_videos` for those of a folder.

The names are loaded on first use: a search of a prepared index looks for files here, and must not load PyAV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbi_infer.video.decoded_video import Clip, DecodedVideo, VideoInfo
    from hbi_infer.video.discovery import VIDEO_SUFFIXES, find_videos
    from hbi_infer.video.pool import decode_many
    from hbi_infer.video.reader import decode, probe, read_frames
    from hbi_infer.video.sampling import Stretch

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "DecodedVideo",
    "Stretch",
    "VideoInfo",
    "decode",
    "decode_many",
    "find_videos",
    "probe",
    "read_frames",
]

_HOMES = {
    "Clip": "decoded_video",
    "DecodedVideo": "decoded_video",
    "Stretch": "sampling",
    "VIDEO_SUFFIXES": "discovery",
    "VideoInfo": "decoded_video",
    "decode": "reader",
    "decode_many": "pool",
    "find_videos": "discovery",
    "probe": "reader",
    "read_frames": "reader",
}


def __getattr__(name: str) -> Any:
    """Returns a public name of this package; raises `AttributeError` for any other."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
