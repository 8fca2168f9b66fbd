"""Scenes of shapes: splits apart, determined by seed, split and number."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.data.shapes import (
    Combination,
    Scene,
    captions,
    render,
    sample_scene,
    scene_at,
    scenes,
    split_of,
)
from hbi_training.data.shapes.scene import (
    COLOURS,
    MOTIONS,
    ROUND,
    SHAPES,
    SIZES,
    SPLITS,
    Split,
    combinations_of,
    track,
)

SEEDS = st.integers(0, 2**32 - 1)

ALL_TIMES = np.arange(48) / 12


def sampled(seed: int, split: Split) -> Scene:
    return sample_scene(np.random.default_rng(seed), split)


class TestSplits:
    def test_every_combination_has_one_split_of_about_the_intended_share(self) -> None:
        sizes = {split: len(combinations_of(split)) for split in SPLITS}
        possible = len(SIZES) * len(COLOURS) * (len(SHAPES) * len(MOTIONS) - len(ROUND))
        assert len({c for split in SPLITS for c in combinations_of(split)}) == sum(sizes.values()) == possible
        assert [round(sizes[split] / possible, 1) for split in SPLITS] == [0.8, 0.1, 0.1]

    @pytest.mark.parametrize("split", SPLITS)
    def test_every_value_of_every_attribute_is_in_every_split(self, split: Split) -> None:
        for values, known in zip(
            zip(*combinations_of(split), strict=True), (SIZES, COLOURS, SHAPES, MOTIONS), strict=True
        ):
            assert set(values) == set(known)

    def test_the_readme_query_is_of_the_test_split(self) -> None:
        assert split_of(Combination("small", "red", "circle", "moves left")) == "test"
        assert split_of(Combination("medium", "blue", "square", "blinks")) == "test"

    @given(seed=SEEDS, split=st.sampled_from(SPLITS))
    @settings(max_examples=100, deadline=None)
    def test_a_scene_shows_its_split_only_and_stays_in_view(self, seed: int, split: Split) -> None:
        scene = sampled(seed, split)
        assert {split_of(combination) for combination in scene.combinations} == {split}
        assert scene.combinations == tuple(
            Combination(thing.size, thing.colour, thing.shape, event.motion)
            for event in scene.events
            for thing in {scene.things[number].rgb: scene.things[number] for number in event.things}.values()
        )
        for number, thing in enumerate(scene.things):
            states = track(scene, number, ALL_TIMES)
            for axis in "xy":
                assert (states[axis] > 0.9 * states["radius"]).all(), thing
                assert (states[axis] < 1 - 0.9 * states["radius"]).all(), thing
        nouns = {(thing.colour, thing.shape) for thing in scene.things}
        assert len(nouns) == len(scene.things) - (len(scene.events[0].things) - 1)  # only members of a group share one

    def test_most_scenes_have_two_events_in_sequence(self) -> None:
        kinds = [scene_at(0, "train", number).kind for number in range(400)]
        assert 0.5 < np.mean([kind in ("sequence", "same") for kind in kinds]) < 0.7
        assert set(kinds) == {"sequence", "same", "together", "single", "count"}


class TestDeterminism:
    def test_a_scene_and_its_frames_depend_on_seed_split_and_number_only(self) -> None:
        first, again = scene_at(5, "val", 3), scene_at(5, "val", 3)
        assert first == again
        assert render(first, ALL_TIMES).tobytes() == render(again, ALL_TIMES).tobytes()
        others = [scene_at(6, "val", 3), scene_at(5, "test", 3), scene_at(5, "val", 4), scene_at(5, "val", 3, 1)]
        assert first not in others

    @given(seed=SEEDS, order=st.permutations(range(48)), kept=st.integers(0, 48))
    @settings(max_examples=20, deadline=None)
    def test_a_frame_does_not_depend_on_the_other_times(self, seed: int, order: list[int], kept: int) -> None:
        scene = sampled(seed, "train")
        some = order[:kept]
        assert np.array_equal(render(scene, ALL_TIMES[some], 32), render(scene, ALL_TIMES, 32)[some])

    def test_scenes_outside_training_have_captions_of_their_own(self) -> None:
        first_captions = [captions(scene, np.random.default_rng(0))[0] for scene in scenes(0, "test", 300)]
        assert len(set(first_captions)) == 300
        assert list(scenes(0, "test", 40)) == list(scenes(0, "test", 300))[:40]

    def test_a_scene_is_json(self) -> None:
        scene = asdict(scene_at(0, "train", 0))
        assert json.loads(json.dumps(scene))["things"][0]["x"] == scene["things"][0]["x"]
