"""Remakes samples/: clips of the test split in several containers, and one damaged file.

The first two tell the README's query and the same events in the other order, so that order has to count.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import av
import numpy as np

from hbi_training.data.shapes import Combination, Scene, captions, compose, render, scenes
from hbi_training.data.shapes.dataset import FRAMES_PER_SECOND
from hbi_training.data.shapes.scene import CLIP_SECONDS

SAMPLES = Path(__file__).parent.parent / "samples"
SEED = 7
FIRST = Combination("small", "red", "circle", "moves left")
SECOND = Combination("medium", "blue", "square", "blinks")
CONTAINERS = [
    ("mp4", "libx264"),
    ("mp4", "libx264"),
    ("mov", "libx264"),
    ("mkv", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("mpg", "mpeg2video"),
    ("ts", "libx264"),
    ("mp4", "libx264"),
    ("mp4", "libx264"),
]
MPEG2_FRAMES_PER_SECOND = 24  # MPEG-2 knows a handful of rates


def scene_of(events: list[Combination]) -> Scene:
    """The first placement of two events in sequence that fits."""
    attempts = (compose(np.random.default_rng([SEED, attempt]), "sequence", events) for attempt in range(100))
    return next(scene for scene in attempts if scene is not None)


def write(path: Path, scene: Scene, codec: str) -> None:
    """Encodes a scene."""
    rate = MPEG2_FRAMES_PER_SECOND if codec == "mpeg2video" else FRAMES_PER_SECOND
    frames = render(scene, np.arange(round(CLIP_SECONDS * rate)) / rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 120_000
        stream.options = {"crf": "23", "threads": "1"} if codec.startswith("lib") else {}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    """Writes the samples; files of other names are removed."""
    SAMPLES.mkdir(exist_ok=True)
    for old in SAMPLES.iterdir():
        old.unlink()
    chosen = [scene_of([FIRST, SECOND]), scene_of([SECOND, FIRST]), *islice(scenes(SEED, "test", 8), 8)]
    for scene, (container, codec) in zip(chosen, CONTAINERS, strict=True):
        words = captions(scene, np.random.default_rng(SEED))[0]
        name = re.sub(r"\b(?:an?|and|the) ", "", words)
        write(SAMPLES / f"{name.replace(' ', '-')}.{container}", scene, codec)
    whole = sorted(SAMPLES.glob("*.mp4"))[0].read_bytes()
    (SAMPLES / "damaged.mp4").write_bytes(whole[: len(whole) // 2])


if __name__ == "__main__":
    main()
