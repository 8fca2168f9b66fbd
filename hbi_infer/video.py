"""Videos: find them, look at them, decode them."""

from __future__ import annotations

from hbi_infer.clip import Clip, DecodedVideo, VideoInfo
from hbi_infer.decode_pool import decode_many
from hbi_infer.frame_reader import decode, probe, read_frames
from hbi_infer.video_files import VIDEO_SUFFIXES, find_videos

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "DecodedVideo",
    "VideoInfo",
    "decode",
    "decode_many",
    "find_videos",
    "probe",
    "read_frames",
]
