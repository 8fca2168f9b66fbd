"""Content of single frames of the drawn world: each visible thing, its colour, its shape and its place.

It is the truth from which a frame encoder learns to see before a model learns what happens over time. Nothing of it
says what moves, or when.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import TrainingError
from hbi_training.data.records import VideoRecord
from hbi_training.data.shapes.dataset import scene_at
from hbi_training.data.shapes.scene import COLOURS, SHAPES, Scene, track

TURNS = {"square": 4, "triangle": 3, "star": 5, "cross": 4}
"""Number of parts of a full turn after each of which a shape looks as before; round shapes always look as before."""
MOST_THINGS = 4
PLACE = ("x", "y", "log radius", "cosine of the turn", "sine of the turn")


@dataclass(frozen=True)
class Stills:
    """Content of frames, in any number of leading axes (...), with K = `MOST_THINGS`.

    Attributes:
        colour: Place of each thing's colour among `COLOURS`, (..., K) int64; -1 for a thing that is not there or not
            visible.
        shape: Place of its shape among `SHAPES`, (..., K) int64; likewise.
        place: Its `PLACE`, (..., K, 5) float32: its middle in picture widths, y downwards, the natural logarithm of its
            radius, and its angle times the shape's `TURNS`.
        turns: Whether its turn can be seen, (..., K) bool.
    """

    colour: npt.NDArray[np.int64]
    shape: npt.NDArray[np.int64]
    place: npt.NDArray[np.float32]
    turns: npt.NDArray[np.bool_]


def stills_of(scene: Scene, times_seconds: npt.NDArray[np.float64]) -> Stills:
    """Returns what the frames of a scene show at times (N,) within the clip."""
    size = (len(times_seconds), MOST_THINGS)
    stills = Stills(
        np.full(size, -1), np.full(size, -1), np.zeros((*size, len(PLACE)), np.float32), np.zeros(size, np.bool_)
    )
    for number, thing in enumerate(scene.things):
        states = track(scene, number, times_seconds)
        visible = states["visible"] > 0
        turn = np.deg2rad(states["angle"]) * TURNS.get(thing.shape, 0)
        stills.colour[visible, number] = list(COLOURS).index(thing.colour)
        stills.shape[visible, number] = SHAPES.index(thing.shape)
        place = np.stack([states["x"], states["y"], np.log(states["radius"]), np.cos(turn), np.sin(turn)], axis=1)
        stills.place[visible, number] = place[visible]
        stills.turns[visible, number] = thing.shape in TURNS
    return stills


def training_stills(
    folder: Path | str, records: Sequence[VideoRecord], times_seconds: npt.NDArray[np.float64]
) -> Stills:
    """Returns what each frame of training clips shows: (N, F, K) and so on.

    Args:
        folder: Folder that `write_shapes` wrote.
        records: Clips of it, N.
        times_seconds: Times (N, F) of their frames.

    Raises:
        TrainingError: The folder is of another kind.
    """
    marker = Path(folder) / "shapes.json"
    if not marker.exists():
        raise TrainingError(
            f"the objective's stills needs drawn clips, of which all is known, and {folder} has no shapes.json: make "
            "some with 'hbi-train data shapes', or set objective.stills to 0"
        )
    seed = json.loads(marker.read_text())["seed"]
    every = [
        stills_of(scene_at(seed, "train", int(record.video.stem.removeprefix("train_"))), times)
        for record, times in zip(records, times_seconds, strict=True)
    ]
    return Stills(*(np.stack(parts) for parts in zip(*(vars(stills).values() for stills in every), strict=True)))
