"""What frames of drawn clips show, against the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import TrainingError
from hbi_training.data.frame_cache import Split
from hbi_training.data.shapes.dataset import scene_at
from hbi_training.data.shapes.render import render
from hbi_training.data.shapes.scene import COLOURS, SHAPES
from hbi_training.data.shapes.stills import TURNS, stills_of, training_stills

TIMES = np.arange(12) / 3


@pytest.mark.parametrize("number", range(6))
def test_a_thing_is_where_its_colour_is_and_unseen_while_it_is_off(number: int) -> None:
    scene = scene_at(5, "train", number)
    stills, frames = stills_of(scene, TIMES), render(scene, TIMES, 96).astype(np.float64)
    told = {(thing.colour, thing.shape) for thing in scene.things}
    seen = {(list(COLOURS)[c], SHAPES[s]) for c, s in zip(stills.colour.flat, stills.shape.flat, strict=True) if c >= 0}
    assert seen == told
    alone = [n for n, thing in enumerate(scene.things) if thing.shape not in ("ring", "cross")]
    for frame in range(len(TIMES)):
        for thing in alone:
            middle = stills.place[frame, thing, :2] * 96
            others = np.delete(stills.place[frame, :, :2] * 96, thing, axis=0)[stills.colour[frame, :-1] >= 0]
            crowded = len(others) and np.abs(others - middle).sum(-1).min() < 40
            if stills.colour[frame, thing] < 0 or crowded or scene.backdrop.bar:
                continue
            column, row = middle.astype(int)
            off = np.abs(frames[frame, row, column] - scene.things[thing].rgb).max()
            assert off < 90
    hidden = stills.colour[:, : len(scene.things)] < 0
    blinks = {thing for event in scene.events if event.motion == "blinks" for thing in event.things}
    assert {int(thing) for thing in np.flatnonzero(hidden.any(0))} == blinks


def test_a_turn_is_the_same_after_a_part_of_a_full_one() -> None:
    scenes = (scene_at(5, "train", number) for number in range(300))
    scene = next(scene for scene in scenes if any(event.motion == "spins" for event in scene.events))
    event = next(event for event in scene.events if event.motion == "spins")
    thing = event.things[0]
    stills = stills_of(scene, np.array([event.start_seconds, event.start_seconds + 0.01]))
    turn = np.arctan2(stills.place[:, thing, 4], stills.place[:, thing, 3])
    step = event.turn * np.deg2rad(event.amount) * 0.01 * TURNS[scene.things[thing].shape]
    assert np.angle(np.exp(1j * (turn[1] - turn[0]))) == pytest.approx(step, abs=1e-4)
    assert stills.turns[:, thing].all()


def test_training_clips_are_told_from_their_seed(
    splits: tuple[Split, Split], data_folder: Path, tmp_path: Path
) -> None:
    clips = splits[0]
    times = clips.cache.timestamps_seconds(clips.cache.decoded)
    stills = training_stills(data_folder, clips.records, times)
    assert stills.place.shape == (len(clips.records), 6, 4, 5)
    expected = stills_of(scene_at(3, "train", 7), times[7])
    assert np.array_equal(stills.place[7], expected.place)
    with pytest.raises(TrainingError, match=r"has no shapes\.json: make some with 'hbi-train data shapes'"):
        training_stills(tmp_path, clips.records, times)
