"""Captions read back: every wording means its story and nothing else, and what is wrong of a scene is found."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.data.shapes import (
    Combination,
    Scene,
    captions,
    captions_right,
    compose,
    hard_negatives,
    sample_scene,
    scenes,
    write_shapes,
)
from hbi_training.data.shapes.captions import TEMPLATES, VERBS, Story, near_misses, story_of, tell
from hbi_training.data.shapes.reading import ATTRIBUTES, attributes_right, in_order, read, readings, wordings
from hbi_training.data.shapes.scene import MOTIONS, SPLITS, Kind

SCENES = st.builds(
    lambda seed, split: sample_scene(np.random.default_rng(seed), split),
    st.integers(0, 2**32 - 1),
    st.sampled_from(SPLITS),
)

RED, BLUE = ("small", "red", "circle"), ("medium", "blue", "square")


def scene_of(kind: Kind, *actors: Combination, count: int = 1, still: tuple[str, str, str] | None = None) -> Scene:
    scene = compose(np.random.default_rng(0), kind, list(actors), count=count, still=still)
    assert scene is not None
    return scene


LEFT, GROWS = Combination(*RED, "moves left"), Combination(*BLUE, "grows")

SEQUENCE = scene_of("sequence", LEFT, GROWS)

TOGETHER = scene_of("together", LEFT, GROWS)

SAME = scene_of("same", LEFT, Combination(*RED, "grows"))

SINGLE = scene_of("single", LEFT, still=("big", "green", "star"))

COUNT = scene_of("count", GROWS, count=2)


class TestRead:
    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=100, deadline=None)
    def test_every_caption_means_its_story_alone(self, scene: Scene, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for caption in captions(scene, rng):
            assert readings(caption) == {in_order(story_of(scene))}, caption
        for stories in near_misses(scene).values():
            for story in stories:
                assert readings(tell(story, rng)) == {in_order(story)}

    @pytest.mark.parametrize("kind", TEMPLATES)
    def test_every_wording_of_every_motion(self, kind: Kind) -> None:
        """Not a sample: all that `tell` can say of stories in which each motion comes first once."""
        others = cycle(MOTIONS[5:] + MOTIONS[:5])
        for motion, other in zip(MOTIONS, others, strict=False):
            second = RED if kind == "same" else ("big", "orange", "star")
            actors = (Combination(*RED, motion), Combination(*second, other))
            story = Story(kind, actors[:1], 3 if kind == "count" else 1)
            if kind in ("sequence", "same", "together"):
                story = Story(kind, actors)
            told = wordings(lambda rng, story=story: tell(story, rng))
            assert len(told) >= len(TEMPLATES[kind]) * len(VERBS[motion])
            for caption in told[:: 1 if len(told) < 300 else 29]:
                assert readings(caption) == {in_order(story)}, caption

    def test_every_bystander(self) -> None:
        for still in (("small", "orange", "cross"), ("medium", "orange", "ring"), ("big", "blue", "circle")):
            story = Story("single", (Combination(*BLUE, "pulses"),), still=still)
            for caption in wordings(lambda rng, story=story: tell(story, rng)):
                assert readings(caption) == {story}, caption

    def test_capitals_blanks_and_a_full_stop_mean_nothing(self) -> None:
        assert read(" A small  red disc sinks.") == read("a small red circle moves down")

    @pytest.mark.parametrize(
        "caption",
        [
            "",
            ".",
            "a red circle",
            "moves left",
            "a red circle moves",
            "a red circle move left",
            "an red circle moves left",
            "two red circle blink",
            "two red circles blinks",
            "a red pentagon moves left",
            "a red circle moves left a blue square grows",
            "a red circle moves left and then",
            "a red circle moves left and then a blue square",
            "a red circle moves left next to a still",
            "a red circle moves left next to a still blue star next to a still blue star",
            "four red circles blink",
            "the red circle moves left",
            "{a} {m}",
        ],
    )
    def test_what_nobody_would_say(self, caption: str) -> None:
        assert read(caption) is None
        assert attributes_right(caption, SEQUENCE) == dict.fromkeys(ATTRIBUTES, False)

    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=60, deadline=None)
    def test_one_word_more_or_less_is_refused_or_could_be_told(self, scene: Scene, seed: int) -> None:
        rng = np.random.default_rng(seed)
        words = tell(story_of(scene), rng).split()
        place, other = rng.integers(len(words), size=2)
        for changed in (words[:place] + words[place + 1 :], [*words[:place], words[other], *words[place:]]):
            story = read(" ".join(changed))
            if story is not None:
                told = {*wordings(lambda rng, story=story: tell(story, rng))}
                if story.kind == "together":
                    story = replace(story, actors=story.actors[::-1])
                    told |= {*wordings(lambda rng, story=story: tell(story, rng))}
                assert " ".join(changed) in told


class TestAttributesRight:
    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=300, deadline=None)
    def test_captions_are_right_and_near_misses_are_not(self, scene: Scene, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for caption in captions(scene, rng):
            assert all(attributes_right(caption, scene).values()), caption
        for caption in hard_negatives(scene, rng, 4):
            assert not attributes_right(caption, scene)["all"], caption

    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=200, deadline=None)
    def test_a_near_miss_is_wrong_where_it_was_changed(self, scene: Scene, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for change, stories in near_misses(scene).items():
            right = attributes_right(tell(stories[rng.integers(len(stories))], rng), scene)
            wrong = {name for name, is_right in right.items() if not is_right}
            if change in ("colour", "shape", "motion"):
                assert wrong == {change, "all"}
            elif change == "direction":
                assert wrong == {"motion", "all"}
            elif change in ("size", "count"):
                assert wrong == {"all"}
            else:
                # Things that exchange what they do at the same time have wrong motions, and nothing out of order.
                assert wrong == {"motion" if scene.kind == "together" else "order", "all"}

    @pytest.mark.parametrize(
        ("scene", "caption", "wrong"),
        [
            (SEQUENCE, "a small red circle moves left and then a blue square grows", ""),
            (SEQUENCE, "a red circle moves left and then a blue square grows", ""),
            (SEQUENCE, "a blue square grows and then a small red circle moves left", "order all"),
            (SEQUENCE, "a small red circle moves left while a blue square grows", "order all"),
            (SEQUENCE, "a big red circle moves left and then a blue square grows", "all"),
            (SEQUENCE, "a small red circle moves left and then a big blue square grows", "all"),
            (SEQUENCE, "a small red circle grows and then a blue square moves left", "motion all"),
            (SEQUENCE, "a red square moves left and then a blue circle grows", "shape all"),
            (SEQUENCE, "a blue square moves left and then a green star grows", "colour shape all"),
            (SEQUENCE, "a small red circle moves left", "colour shape motion order all"),
            (SEQUENCE, "a small red circle moves left and then grows", "colour shape motion order all"),
            (TOGETHER, "a small red circle moves left while a blue square grows", ""),
            (TOGETHER, "a blue square grows while a small red circle moves left", ""),
            (TOGETHER, "a blue square grows and then a small red circle moves left", "order all"),
            (TOGETHER, "a green square grows while a small red circle moves left", "colour all"),
            (SAME, "a small red circle moves left and then grows", ""),
            (SAME, "a small red circle grows and then moves left", "order all"),
            (SAME, "a small red circle moves left and then blinks", "motion all"),
            (SAME, "a small red circle moves left", "motion order all"),
            (SAME, "a small red circle moves left and then a small red circle grows", "colour shape motion order all"),
            (SINGLE, "a small red circle moves left", ""),
            (SINGLE, "a small red circle moves left next to a still big green star", ""),
            (SINGLE, "a small red circle moves left next to a still green star", ""),
            (SINGLE, "a small red circle moves left next to a still small green star", "all"),
            (SINGLE, "a small red circle moves left next to a still big green ring", "shape all"),
            (SINGLE, "a small red circle moves left next to a still big white star", "colour all"),
            (SINGLE, "a small red circle moves right next to a still big green star", "motion all"),
            (SINGLE, "two small red circles move left", "all"),
            (SINGLE, "a small red circle moves left and then grows", "motion order all"),
            (COUNT, "two blue squares grow", ""),
            (COUNT, "three blue squares grow", "all"),
            (COUNT, "two blue squares grow next to a still red star", "colour shape all"),
        ],
    )
    def test_by_hand(self, scene: Scene, caption: str, wrong: str) -> None:
        right = attributes_right(caption, scene)
        assert tuple(right) == ATTRIBUTES
        assert [name for name, is_right in right.items() if not is_right] == wrong.split()


def test_captions_are_read_back(tmp_path: Path) -> None:
    write_shapes(tmp_path, 10, 4, 1, seed=5, workers=1)
    lines = [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()]
    true = {Path(line["video"]).name: line["captions"][1] for line in lines}
    assert captions_right(tmp_path, "val", true)["all"] == 100.0
    near = {Path(line["video"]).name: line["hard_negatives"][0] for line in lines}
    assert captions_right(tmp_path, "val", {**near, **dict(list(true.items())[:2])})["all"] == 50.0
    assert len(list(scenes(5, "val", 4))) == 4
