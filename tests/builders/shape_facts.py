"""Facts that captions and questions of `shapes` state, read back from the words alone."""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np
from hypothesis import strategies as st

from hbi_training.data.shapes import Scene, sample_scene
from hbi_training.data.shapes.captions import VERBS, inflected
from hbi_training.data.shapes.scene import COLOURS, HEADINGS, SHAPES, SPLITS, Event

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
