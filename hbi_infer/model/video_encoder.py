"""Encoding of clips: each different frame once, then each clip by the features of its frames.

A frame that is missing, or equal to the one before it (slides, screen recordings, still pictures), is not encoded, and
a batch is full of frames however long the clips are. Bundles of older versions have one graph for both steps, which
encodes all frames that a clip may have.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays, Runnable
from hbi_engines.errors import EngineError

Frames: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]
RunGraph: TypeAlias = Callable[[Arrays], Arrays]
OpenGraph: TypeAlias = Callable[[str], Runnable]


class VideoEncoder(Protocol):
    """Computes the tokens of clips."""

    def run(self, frames: Frames, mask: Mask) -> Arrays:
        """Returns tokens, weights and slots of each level, by name.

        Args:
            frames: Frames (B, F, H, W, 3) uint8.
            mask: True at real frames, (B, F) bool.
        """


class OneGraph:
    """The graph `video_encoder` of older bundles."""

    def __init__(self, encoder: Runnable) -> None:
        self._encoder = encoder

    def run(self, frames: Frames, mask: Mask) -> Arrays:
        """Returns tokens, weights and slots of frames (B, F, H, W, 3) with mask (B, F); see `VideoEncoder.run`."""
        return self._encoder.run({"frames": frames, "frame_mask": mask})


class TwoGraphs:
    """The graphs `frame_encoder` and `clip_encoder`.

    Args:
        frame_encoder: Graph of single frames (N, H, W, 3).
        clip_encoder: Graph of the features of clips' frames.
        batch_frames: Largest number of frames that the first graph is given at a time.
    """

    def __init__(self, frame_encoder: Runnable, clip_encoder: Runnable, batch_frames: int) -> None:
        self._frame_encoder, self._clip_encoder, self._batch_frames = frame_encoder, clip_encoder, batch_frames

    def run(self, frames: Frames, mask: Mask) -> Arrays:
        """Returns tokens, weights and slots of frames (B, F, H, W, 3) with mask (B, F); see `VideoEncoder.run`.

        Raises:
            EngineError: The arrays are of other shapes or types.
        """
        if frames.ndim != 5 or mask.shape != frames.shape[:2] or mask.dtype != np.bool_:
            raise EngineError(
                f"frames is {frames.shape} and frame_mask is {mask.shape} {mask.dtype}; they must be (B, F, H, W, 3) "
                "and (B, F) bool"
            )
        features = frame_features(self._frame_encoder.run, frames, mask, self._batch_frames)
        return self._clip_encoder.run({"features": features, "frame_mask": mask})


def frame_features(run: RunGraph, frames: Frames, mask: Mask, batch_frames: int) -> npt.NDArray[Any]:
    """Computes the features (B, F, D) of the frames of clips, 0 where they are missing.

    Args:
        run: Runs the graph `frame_encoder`, or what it was traced from.
        frames: Frames (B, F, H, W, 3) uint8.
        mask: True at real frames, (B, F) bool.
        batch_frames: Largest number of frames at a time.
    """
    new = differs_from_the_one_before(frames, mask)
    clip, place = np.nonzero(new) if new.any() else (np.zeros(1, np.intp),) * 2  # the width is not known otherwise
    parts = [run({"frames": frames[clip[part], place[part]]})["features"] for part in _parts(len(clip), batch_frames)]
    encoded = np.concatenate(parts)
    # Every real frame has the feature of the newest different one.
    newest = np.cumsum(new).reshape(mask.shape) - 1
    features = np.zeros((*mask.shape, encoded.shape[-1]), encoded.dtype)
    features[mask] = encoded[newest[mask]]
    return features


def differs_from_the_one_before(frames: Frames, mask: Mask) -> Mask:
    """Returns where a real frame is not equal to the real frame before it in its clip: (B, F) bool."""
    new = mask.copy()
    for clip in range(len(frames)):
        for before, place in pairwise(np.flatnonzero(mask[clip])):
            new[clip, place] = not np.array_equal(frames[clip, place], frames[clip, before])
    return new


def open_video_encoder(graphs: Container[str], open_graph: OpenGraph, batch_frames: int) -> VideoEncoder:
    """Opens the graphs of a bundle that encode clips.

    Args:
        graphs: Names of the bundle's graphs.
        open_graph: Makes one of them ready to run.
        batch_frames: Largest number of frames at a time.
    """
    if "clip_encoder" not in graphs:
        return OneGraph(open_graph("video_encoder"))
    return TwoGraphs(open_graph("frame_encoder"), open_graph("clip_encoder"), batch_frames)


def _parts(count: int, most: int) -> list[slice]:
    """Returns the places of `count` items in parts of nearly the same size, at most `most`."""
    number = -(-count // most)
    edges = [count * part // number for part in range(number + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]
