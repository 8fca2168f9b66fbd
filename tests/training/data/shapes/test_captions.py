"""What `shapes` says of a clip, read back from the words alone: true, complete, and one answer to each question."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.data.shapes import ANSWERS, Scene, captions, hard_negatives, questions, sample_scene, scene_at
from hbi_training.data.shapes.captions import VERBS, inflected, near_misses, story_of, tell
from hbi_training.data.shapes.scene import COLOURS, HEADINGS, SHAPES, SPLITS, Event, Split, Thing

SCENES = st.builds(
    lambda seed, split: sample_scene(np.random.default_rng(seed), split),
    st.integers(0, 2**32 - 1),
    st.sampled_from(SPLITS),
)

Fact = tuple[int, str, str, str, str]  # count, size, colour, shape, motion
Reading = tuple[
    str, tuple[Fact, ...], tuple[str, ...] | None
]  # sequence or together, facts in order of time, who is still

MEANS = {
    form: motion
    for motion, verbs in VERBS.items()
    for verb in verbs
    for form in (verb, inflected(verb, "s"), inflected(verb, "ing"))
}
SIZE_MEANS = {"": "medium", "small": "small", "little": "small", "tiny": "small", "big": "big", "large": "big"}
# What a careless eye also sees; nothing may hang on the difference.
ALSO = {
    "pulses": {"grows", "shrinks"},
    "bounces": {"moves up", "moves down"},
    "orbits": set(HEADINGS),
    "shakes": {"moves left", "moves right"},
}
COUNTS = {"a": 1, "an": 1, "two": 2, "three": 3}
THING = rf"(?:(small|little|tiny|big|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}|disc)"
VERB = "|".join(sorted(MEANS, key=len, reverse=True))
STILL = (
    rf" next to a still {THING}$| beside a motionless {THING}$|, with a still {THING} in the picture$"
    rf"|, and there is an? {THING} that does not move$"
)


def read(text: str) -> Reading:
    """What a caption or a yes/no question states, from the order of its words."""
    bystander = re.search(STILL, text)
    still = None
    if bystander:
        size, colour, shape = next(g for g in np.array_split(bystander.groups(), 4) if g[1])
        still = (SIZE_MEANS[size or ""], str(colour), str(shape).replace("disc", "circle"))
        text = text[: bystander.start()]
    nouns = [
        (COUNTS[count], SIZE_MEANS[size], colour, shape.replace("disc", "circle"))
        for count, size, colour, shape in re.findall(rf"\b(an?|two|three) {THING}(?:e?s)?\b", text)
    ]
    motions = [MEANS[verb] for verb in re.findall(rf"\b({VERB})\b", text)]
    assert len(motions) in (1, 2), text
    assert len(nouns) in (1, len(motions)), text
    facts = [(*noun, motion) for noun, motion in zip(nouns * len(motions), motions, strict=False)]
    if re.search(r"\bwhile\b|(?<!as soon) as a|at the same time", text):
        return "together", tuple(sorted(facts)), still
    if re.search(r"^before\b|\w after\b", text):
        facts.reverse()
    return "sequence", tuple(facts), still


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


def contains(scene: Scene, when: str, facts: tuple[Fact, ...]) -> bool:
    """Whether the facts hold for the events of the scene, in that order; a size that goes without saying fits all."""

    def fits(fact: Fact, event: Event) -> bool:
        count, size, colour, shape, motion = fact
        thing = scene.things[event.things[0]]
        return (
            (thing.colour, thing.shape, len(event.things)) == (colour, shape, count)
            and size in (thing.size, "medium")
            and motion in {event.motion, *ALSO.get(event.motion, ())}
        )

    orders = permutations(scene.events) if when == "together" else [scene.events]
    return any(all(fits(*pair) for pair in zip(facts, order, strict=True)) for order in orders)


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
