"""Questions about shapes have one answer each, read back from the words alone."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.data.shapes import ANSWERS, Scene, captions, hard_negatives, questions, scene_at
from hbi_training.data.shapes.scene import HEADINGS, SHAPES, SPLITS, Split, Thing
from tests.builders.shape_facts import ALSO, MEANS, SCENES, contains, read


def doing(scene: Scene, verb: str) -> list[Thing]:
    seen = [event for event in scene.events if MEANS[verb] in {event.motion, *ALSO.get(event.motion, ())}]
    return [scene.things[number] for number in {number for event in seen for number in event.things}]


def singular(word: str) -> str:
    return next(shape for shape in SHAPES if word in (shape, f"{shape}s", f"{shape}es"))


def answers(scene: Scene, question: str) -> set[str]:
    """Every answer that somebody who sees the whole scene could give."""
    things = scene.things

    def asked(pattern: str) -> re.Match[str] | None:
        return re.fullmatch(pattern, question)

    def named(colour: str, shape: str) -> list[int]:
        return [n for n, thing in enumerate(things) if (thing.colour, thing.shape) == (colour, singular(shape))]

    if match := asked(r"what (colour|shape) (?:is|are) the objects? that (.*)\?"):
        return {getattr(thing, match[1]) for thing in doing(scene, match[2])}
    if match := asked(r"what colour (?:is|are) the (\w+)\?"):
        return {thing.colour for thing in things if thing.shape == singular(match[1])}
    if match := asked(r"what shape (?:is|are) the (\w+) objects?\?"):
        return {thing.shape for thing in things if thing.colour == match[1]}
    if match := asked(r"what size (?:is|are) the (\w+) (\w+) at the start\?"):
        return {things[n].size for n in named(match[1], match[2])}
    if asked(r"how many objects are there\?"):
        return {str(len(things))}
    if match := asked(r"how many (\w+) objects are there\?"):
        return {str(sum(thing.colour == match[1] for thing in things))}
    if match := asked(r"how many objects (.*)\?"):
        return {str(len(doing(scene, match[1])))}
    if match := asked(r"(?:what|in which direction) (?:does|do) the (\w+) (\w+) (?:do|move)( first| last|)\?"):
        (who,) = {n for event in scene.events for n in event.things[:1] if n in named(match[1], match[2])}
        events = [event for event in scene.events if who in event.things]
        motions = [event.motion for event in sorted(events, key=lambda event: event.start_seconds)]
        if question.startswith("in which"):
            return {motion.removeprefix("moves ") for motion in motions if motion in HEADINGS}
        return set(motions[:1] if match[3] == " first" else motions[-1:] if match[3] == " last" else motions)
    if match := asked(r"which (?:happens|acts) (first|last), (.*) or (.*)\?"):
        times: dict[str, float] = {}
        for option in match.groups()[1:]:
            word = option.removeprefix("the ").removesuffix(" object")
            value = MEANS.get(word, word)
            starts = [
                event.start_seconds
                for event in scene.events
                for thing in [things[event.things[0]]]
                if value in (thing.colour, thing.shape, event.motion)
            ]
            assert len(starts) == 1, question
            assert option == word or sum(value in (thing.colour, thing.shape) for thing in things) == 1, question
            times[value] = starts[0]
        chosen = min if match[1] == "first" else max
        return {chosen(times, key=lambda value: times[value])}
    if match := asked(r"(?:is there an?|are there any) (\w+) (\w+)\?"):
        return {"yes" if named(match[1], match[2]) else "no"}
    assert question.startswith(("do ", "does ")), question
    when, facts, _ = read(question.rstrip("?"))
    return {"yes" if contains(scene, when, facts) else "no"}


class TestQuestions:
    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=400, deadline=None)
    def test_each_has_one_answer_and_it_is_right(self, scene: Scene, seed: int) -> None:
        asked = questions(scene, np.random.default_rng(seed))
        assert len({item["question"] for item in asked}) == len(asked)
        for item in asked:
            assert answers(scene, item["question"]) == {item["answer"]}, item
            assert item["answer"] in ANSWERS

    def test_yes_and_no_are_balanced_and_every_answer_comes(self) -> None:
        asked = [item for n in range(800) for item in questions(scene_at(0, "train", n), np.random.default_rng(n))]
        counts = Counter(item["answer"] for item in asked)
        assert counts["yes"] == counts["no"] == 800
        assert set(counts) == set(ANSWERS)
        assert {item["type"] for item in asked} == {
            "colour", "shape", "size", "count", "motion", "direction", "which first", "yes/no",
        }  # fmt: skip

    @pytest.mark.parametrize("split", SPLITS)
    def test_same_generator_same_words(self, split: Split) -> None:
        scene = scene_at(1, split, 2)
        for speak in (captions, hard_negatives, questions):
            assert speak(scene, np.random.default_rng(3)) == speak(scene, np.random.default_rng(3))
