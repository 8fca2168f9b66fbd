"""Questions about a scene, each with exactly one short answer from a closed vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hbi_training.data.shapes.captions import (
    ALSO_SEEN,
    VERBS,
    Story,
    inflected,
    near_misses,
    noun_phrase,
    pick,
    plural,
    story_of,
)
from hbi_training.data.shapes.scene import COLOURS, HEADINGS, MOTIONS, SHAPES, SIZES, Event, Scene, Thing

Asked = tuple[str, str]  # question, answer

ANSWERS = (*COLOURS, *SHAPES, *SIZES, *MOTIONS, "left", "right", "up", "down", "1", "2", "3", "yes", "no")


def questions(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
    """Asks one question of each type that the scene allows, with yes and no as separate types.

    Returns:
        A list of `{"question", "answer", "type"}`; the answer is one of `ANSWERS`, the type a key of `TYPES`, or
        yes/no.
    """
    asked = []
    for name, propose in TYPES.items():
        proposed = propose(scene, rng)
        if proposed:
            question, answer = proposed[rng.integers(len(proposed))]
            asked.append({"question": question, "answer": answer, "type": "yes/no" if name in ("yes", "no") else name})
    return asked


@dataclass(frozen=True)
class _Party:
    """Identical things, their number, and their events in order of time."""

    thing: Thing
    count: int
    events: tuple[Event, ...]

    def the(self, name: str, verbs: tuple[str, str] = ("is", "are")) -> str:
        """Returns `is the red circle`, or `are the red circles` for several; other verbs give `does the red circle`."""
        return f"{verbs[0]} the {name}" if self.count == 1 else f"{verbs[1]} the {plural(name)}"

    def that(self, motion: str, rng: np.random.Generator) -> str:
        """Returns `is the object that moves left`, or `are the objects that move left` for several."""
        verb = pick(VERBS[motion], rng)
        return f"{self.the('object')} that {inflected(verb, 's') if self.count == 1 else verb}"


def _parties(scene: Scene) -> list[_Party]:
    apart = scene.kind in ("sequence", "together")
    leaders = range(len(scene.events)) if apart else (0,)
    parties = [
        _Party(scene.things[n], len(scene.events[n].things), (scene.events[n],) if apart else scene.events)
        for n in leaders
    ]
    return parties if scene.still is None else [*parties, _Party(scene.things[scene.still], 1, ())]


def _told_apart(scene: Scene) -> list[tuple[_Party, str]]:
    """Returns parties, each with a motion that no other party even seems to have."""
    parties = _parties(scene)
    return [
        (party, event.motion)
        for party in parties
        for event in party.events
        if not any(
            event.motion in (other.motion, *ALSO_SEEN.get(other.motion, ()))
            for rival in parties
            if rival is not party
            for other in rival.events
        )
    ]


def _colour(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    asked = [(f"what colour {party.that(motion, rng)}?", party.thing.colour) for party, motion in _told_apart(scene)]
    parties = _parties(scene)
    shapes = [party.thing.shape for party in parties]
    return asked + [
        (f"what colour {party.the(party.thing.shape)}?", party.thing.colour)
        for party in parties
        if shapes.count(party.thing.shape) == 1
    ]


def _shape(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    asked = [(f"what shape {party.that(motion, rng)}?", party.thing.shape) for party, motion in _told_apart(scene)]
    parties = _parties(scene)
    colours = [party.thing.colour for party in parties]
    return asked + [
        (f"what shape {party.the(f'{party.thing.colour} object')}?", party.thing.shape)
        for party in parties
        if colours.count(party.thing.colour) == 1
    ]


def _size(scene: Scene, _: np.random.Generator) -> list[Asked]:
    # Growing changes the size, so the question names a moment.
    return [(f"what size {party.the(_name(party))} at the start?", party.thing.size) for party in _parties(scene)]


def _count(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    asked = [("how many objects are there?", str(len(scene.things)))] * 2  # most other counts are 1
    for colour in sorted({thing.colour for thing in scene.things}):
        alike = sum(thing.colour == colour for thing in scene.things)
        asked.append((f"how many {colour} objects are there?", str(alike)))
    return asked + [
        (f"how many objects {pick(VERBS[motion], rng)}?", str(party.count)) for party, motion in _told_apart(scene)
    ]


def _motion(scene: Scene, _: np.random.Generator) -> list[Asked]:
    moments = (" first", " last") if scene.kind == "same" else ("",)
    return [
        (f"what {party.the(_name(party), ('does', 'do'))} do{moment}?", event.motion)
        for party in _parties(scene)
        for event, moment in zip(party.events, moments, strict=False)  # bystanders have no events
    ]


def _direction(scene: Scene, _: np.random.Generator) -> list[Asked]:
    asked = []
    for party in _parties(scene):
        paths = [event.motion for event in party.events if event.motion in (*HEADINGS, "bounces", "orbits", "shakes")]
        if len(paths) == 1 and paths[0] in HEADINGS:
            question = f"in which direction {party.the(_name(party), ('does', 'do'))} move?"
            asked.append((question, paths[0].removeprefix("moves ")))
    return asked


def _first(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    """Asks which of two events comes first or last, or which of the two things acts then."""
    if scene.kind not in ("sequence", "same"):
        return []
    still = () if scene.still is None else (scene.things[scene.still].colour, scene.things[scene.still].shape)
    asked = []
    for part, question in (("motion", "which happens"), ("colour", "which acts"), ("shape", "which acts")):
        values: list[str] = [getattr(combination, part) for combination in scene.combinations]
        if values[0] == values[1] or set(values) & set(still):  # "the red object" must be unique
            continue
        naming = {"motion": "{}", "colour": "the {} object", "shape": "the {}"}[part]
        told = [naming.format(inflected(VERBS[v][0], "ing") if part == "motion" else v) for v in values]
        options = " or ".join(told[n] for n in rng.permutation(2))
        asked += [(f"{question} {when}, {options}?", v) for when, v in zip(("first", "last"), values, strict=True)]
    return asked


def _yes(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    party = _parties(scene)[-1]
    return [*[(_whether(story_of(scene), rng), "yes")] * 2, (_is_there(_name(party), party.count), "yes")]


def _no(scene: Scene, rng: np.random.Generator) -> list[Asked]:
    misses = list(near_misses(scene).values())
    stories = misses[rng.integers(len(misses))]
    present = {_name(party) for party in _parties(scene)}
    absent = [name for colour in COLOURS for shape in SHAPES if (name := f"{colour} {shape}") not in present]
    there = _is_there(absent[rng.integers(len(absent))], len(scene.events[0].things))
    return [*[(_whether(stories[rng.integers(len(stories))], rng), "no")] * 2, (there, "no")]


TYPES: dict[str, Callable[[Scene, np.random.Generator], list[Asked]]] = {
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "count": _count,
    "motion": _motion,
    "direction": _direction,
    "which first": _first,
    "yes": _yes,
    "no": _no,
}


def _name(party: _Party) -> str:
    """Returns colour and shape, which identify a party."""
    return f"{party.thing.colour} {party.thing.shape}"


def _is_there(name: str, count: int) -> str:
    return f"are there any {plural(name)}?" if count > 1 else f"is there {'an' if name[0] == 'o' else 'a'} {name}?"


def _whether(story: Story, rng: np.random.Generator) -> str:
    """Asks whether a story is true: `does a red circle move left before a blue square blinks?`."""
    a, b = story.actors[0], story.actors[-1]
    first, second = (pick(VERBS[actor.motion], rng) for actor in (a, b))
    asked = f"{'do' if story.count > 1 else 'does'} {noun_phrase(a[:3], story.count, rng)} {first}"
    if story.kind == "same":
        asked += f" before {inflected(second, 'ing')}"
    elif story.kind in ("sequence", "together"):
        joint = "before" if story.kind == "sequence" else "while"
        asked += f" {joint} {noun_phrase(b[:3], 1, rng)} {inflected(second, 's')}"
    return f"{asked}?"
