"""Captions of shapes, read back from the words alone: true and complete."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.data.shapes import Scene, captions, hard_negatives, scene_at
from hbi_training.data.shapes.captions import VERBS, captions_with_phrases, inflected, near_misses, story_of, tell
from tests.builders.shape_facts import SCENES, Fact, Reading, contains, read


def facts_of(scene: Scene) -> Reading:
    facts = [
        (len(event.things), thing.size, thing.colour, thing.shape, event.motion)
        for event in sorted(scene.events, key=lambda event: event.start_seconds)
        for thing in [scene.things[event.things[0]]]
    ]
    bystander = scene.things[scene.still] if scene.still is not None and scene.still_told else None
    still = (bystander.size, bystander.colour, bystander.shape) if bystander else None
    if len(facts) == 2 and scene.events[0].start_seconds == scene.events[1].start_seconds:
        return "together", tuple(sorted(facts)), still
    return "sequence", tuple(facts), still


class TestCaptions:
    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=300, deadline=None)
    def test_each_is_true_complete_and_different(self, scene: Scene, seed: int) -> None:
        told = captions(scene, np.random.default_rng(seed))
        assert len(set(told)) == len(told) == 5
        assert told[0] == tell(story_of(scene))
        for caption in told:
            assert read(caption) == facts_of(scene), caption
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  ", caption), caption

    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=100, deadline=None)
    def test_phrases_are_the_things_and_the_verbs(self, scene: Scene, seed: int) -> None:
        told = captions_with_phrases(scene, np.random.default_rng(seed))
        assert [caption.text for caption in told] == captions(scene, np.random.default_rng(seed))
        story = story_of(scene)
        for caption in told:
            verbs = Counter(phrase.event for phrase in caption.phrases if phrase.kind == "verb")
            assert verbs == Counter(range(len(story.actors)))
            nouns = [phrase.event for phrase in caption.phrases if phrase.kind == "noun"]
            assert (None in nouns) == (story.still is not None)
            for phrase in caption.phrases:
                words = caption.text[phrase.start : phrase.end]
                if phrase.kind == "verb":
                    assert phrase.event is not None
                    said = VERBS[story.actors[phrase.event].motion]
                    assert words in {
                        form for verb in said for form in (verb, inflected(verb, "s"), inflected(verb, "ing"))
                    }
                else:
                    noun = story.still if phrase.event is None else story.actors[phrase.event][:3]
                    assert noun is not None
                    assert noun[1] in words.split()

    def test_the_canonical_caption_is_plain(self) -> None:
        told = [captions(scene_at(0, "train", number), np.random.default_rng(0))[0] for number in range(200)]
        assert "a small red cross moves up and then an orange triangle pulses" in told
        assert "two big yellow stars blink" in told
        assert "a cyan cross moves left while a small purple circle grows next to a still small orange cross" in told

    def test_every_wording_of_every_motion_is_used(self) -> None:
        rng = np.random.default_rng(0)
        told = " ".join(" ".join(captions(scene_at(0, "train", number), rng)) for number in range(600))
        for verbs in VERBS.values():
            for verb in verbs:
                assert f" {inflected(verb, 's')}" in told, verb
                assert f" {inflected(verb, 'ing')}" in told, verb


class TestHardNegatives:
    @given(scene=SCENES, seed=st.integers(0, 1000))
    @settings(max_examples=300, deadline=None)
    def test_each_is_false_in_one_thing(self, scene: Scene, seed: int) -> None:
        told = hard_negatives(scene, np.random.default_rng(seed), 4)
        assert len(set(told)) == 4
        when, facts, still = facts_of(scene)
        for caption in told:
            false_when, false_facts, false_still = read(caption)
            assert (when, still) == (false_when, false_still)
            assert not contains(scene, when, false_facts), caption
            assert differs_in_one_thing(facts, false_facts), caption

    def test_every_sort_of_change_is_made(self) -> None:
        kinds = Counter(kind for number in range(100) for kind in near_misses(scene_at(0, "train", number)))
        assert set(kinds) == {"order", "colour", "shape", "size", "motion", "direction", "count"}


def differs_in_one_thing(facts: tuple[Fact, ...], false_facts: tuple[Fact, ...]) -> bool:
    changes = {
        (part, old[part], new[part])
        for old, new in zip(facts, false_facts, strict=True)
        for part in range(5)
        if old[part] != new[part]
    }
    exchanged = Counter(v for fact in facts for v in fact) == Counter(v for fact in false_facts for v in fact)
    # A change may also reorder the sorted facts of things that happen at the same time.
    return len(changes) == 1 or exchanged or one_replaced(facts, false_facts)


def one_replaced(facts: tuple[Fact, ...], false_facts: tuple[Fact, ...]) -> bool:
    old, new = Counter(facts) - Counter(false_facts), Counter(false_facts) - Counter(facts)
    pairs = zip(old.elements(), new.elements(), strict=True)
    return [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs] == [1]
