"""Captions of a scene: a plain canonical one, paraphrases of it, and near misses that are not true."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hbi_training.data.shapes.scene import COLOURS, HEADINGS, MOTIONS, ROUND, SHAPES, Combination, Kind, Scene

Noun = tuple[str, str, str]

NUMBERS = {2: "two", 3: "three"}
OPPOSITES = {
    "moves left": "moves right",
    "moves right": "moves left",
    "moves up": "moves down",
    "moves down": "moves up",
    "grows": "shrinks",
    "shrinks": "grows",
}
# Motions that each motion could be mistaken for, which therefore never serve as its near misses.
ALSO_SEEN = {
    "pulses": ("grows", "shrinks"),
    "bounces": ("moves up", "moves down"),
    "orbits": tuple(HEADINGS),
    "shakes": ("moves left", "moves right"),
}
# The first of each is canonical. Verbs are in the plural; `inflected` makes the other forms.
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "big": ("big", "large")}
SHAPE_WORDS = {"circle": ("circle", "disc")}
GO = ("move", "slide", "glide", "drift")
VERBS = {
    "moves left": tuple(f"{go} {way}" for way in ("left", "to the left") for go in GO),
    "moves right": tuple(f"{go} {way}" for way in ("right", "to the right") for go in GO),
    "moves up": (*(f"{go} {way}" for way in ("up", "upwards") for go in GO), "rise"),
    "moves down": (*(f"{go} {way}" for way in ("down", "downwards") for go in GO), "sink"),
    "grows": ("grow", "get bigger", "become larger", "expand"),
    "shrinks": ("shrink", "get smaller", "become smaller"),
    "blinks": ("blink", "flash", "go on and off"),
    "spins": ("spin", "rotate", "turn around"),
    "bounces": ("bounce", "jump up and down", "hop"),
    "orbits": ("orbit", "go round in a circle", "circle around"),
    "shakes": ("shake", "wobble", "tremble"),
    "pulses": ("pulse", "throb"),
}
# {a} and {b} are things, {m} and {n} their verbs, {ming} and {ning} the participles. The first of each is canonical.
TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "sequence": (
        "{a} {m} and then {b} {n}",
        "first {a} {m}, then {b} {n}",
        "{a} {m}, followed by {b} {ning}",
        "after {a} {m}, {b} {n}",
        "{b} {n} after {a} {m}",
        "{a} {m} before {b} {n}",
        "before {b} {n}, {a} {m}",
        "{a} {m}, and afterwards {b} {n}",
        "{a} {m}; as soon as it stops, {b} {n}",
    ),
    "same": (
        "{a} {m} and then {n}",
        "first {a} {m}, then it {n}",
        "{a} {m} before {ning}",
        "after {ming}, {a} {n}",
        "{a} {n} after {ming}",
        "{a} {m}, then {n}",
        "{a} {m}, and afterwards it {n}",
    ),
    "together": (
        "{a} {m} while {b} {n}",
        "while {a} {m}, {b} {n}",
        "{b} {n} while {a} {m}",
        "{a} {m} as {b} {n}",
        "{a} {m} and at the same time {b} {n}",
        "at the same time, {b} {n} and {a} {m}",
    ),
    "single": ("{a} {m}", "we see {a} {ming}", "a video of {a} {ming}", "all the time {a} {m}", "{a} {ming}"),
    "count": ("{a} {m}", "we see {a} {ming}", "a video of {a} {ming}", "{a} {m} together", "all the time {a} {m}"),
}
STILL_TEMPLATES = (
    "{told} next to a still {still}",
    "{told} beside a motionless {still}",
    "{told}, with a still {still} in the picture",
    "{told}, and there is a {still} that does not move",
)


PhraseKind = Literal["noun", "verb"]
# Characters that stand around the phrases of a caption while it is put together; none of them is in any word.
MARKS: dict[str, tuple[PhraseKind, int | None]] = {
    "\ue000": ("noun", 0),
    "\ue001": ("noun", 1),
    "\ue002": ("verb", 0),
    "\ue003": ("verb", 1),
    "\ue004": ("noun", None),
}
END_MARK = "\ue00f"
FIRST_NOUN, SECOND_NOUN, FIRST_VERB, SECOND_VERB, STILL_NOUN = MARKS


@dataclass(frozen=True)
class ToldPhrase:
    """A phrase of a caption.

    Attributes:
        kind: Kind of phrase: the name of a thing or the verb of an event.
        event: Position in `Story.actors` of the event that it tells of; None for the bystander.
        start: Place of its first character in the caption.
        end: Place behind its last character.
    """

    kind: PhraseKind
    event: int | None
    start: int
    end: int


@dataclass(frozen=True)
class Told:
    """A caption with its phrases, in the order of the text."""

    text: str
    phrases: tuple[ToldPhrase, ...]


@dataclass(frozen=True)
class Story:
    """Content of a caption: the combination of each event, the number of participants, and the bystander."""

    kind: Kind
    actors: tuple[Combination, ...]
    count: int = 1
    still: Noun | None = None


def story_of(scene: Scene) -> Story:
    """Returns the content of a complete caption of the scene."""
    still = scene.things[scene.still] if scene.still is not None and scene.still_told else None
    noun = (still.size, still.colour, still.shape) if still else None
    return Story(scene.kind, scene.combinations, len(scene.events[0].things), noun)


def captions(scene: Scene, rng: np.random.Generator, num: int = 5) -> list[str]:
    """Writes different captions, each true and complete; the first is the canonical plain one."""
    return [told.text for told in captions_with_phrases(scene, rng, num)]


def captions_with_phrases(scene: Scene, rng: np.random.Generator, num: int = 5) -> list[Told]:
    """Writes the captions that `captions` does, and says where their phrases stand."""
    story = story_of(scene)
    first = tell_with_phrases(story)
    told = {first.text: first}
    while len(told) < num:
        caption = tell_with_phrases(story, rng)
        told.setdefault(caption.text, caption)
    return list(told.values())


def hard_negatives(scene: Scene, rng: np.random.Generator, num: int = 3) -> list[str]:
    """Writes different untrue captions; each changes one of order, colour, shape, size, motion, direction, count."""
    misses = near_misses(scene)
    names = list(misses)
    told: list[str] = []
    while len(told) < num:
        stories = misses[names[rng.integers(len(names))]]  # each sort of change is equally likely
        caption = tell(stories[rng.integers(len(stories))], rng)
        if caption not in told:
            told.append(caption)
    return told


def near_misses(scene: Scene) -> dict[str, list[Story]]:
    """Returns stories that differ from the scene's in one respect and are not true of it, by the sort of change."""
    story = story_of(scene)
    first = story.actors[0]
    misses: dict[str, list[Story]] = {name: [] for name in ("order", "colour", "shape", "size", "motion", "direction")}
    if story.kind in ("sequence", "same"):
        misses["order"].append(replace(story, actors=story.actors[::-1]))
    if story.kind == "together" and first.motion != story.actors[1].motion:
        exchanged = [_with(story, n, motion=story.actors[1 - n].motion).actors[n] for n in (0, 1)]
        if not any(actor.motion == "spins" and actor.shape in ROUND for actor in exchanged):
            misses["order"].append(replace(story, actors=tuple(exchanged)))
    present = {(thing.colour, thing.shape) for thing in scene.things}
    for number, actor in enumerate(story.actors):
        if number == 0 or story.kind != "same":  # in "same" one noun serves both events
            misses["colour"] += [_with(story, number, colour=c) for c in COLOURS if (c, actor.shape) not in present]
            spinning = any(a.motion == "spins" for a in (story.actors if story.kind == "same" else (actor,)))
            misses["shape"] += [
                _with(story, number, shape=s)
                for s in SHAPES
                if (actor.colour, s) not in present and not (spinning and s in ROUND)
            ]
            # A caption without a size stays true, so the change is always to another size word.
            misses["size"] += [_with(story, number, size=s) for s in ("small", "big") if s != actor.size]
        taken = {a.motion for a in story.actors} if story.kind == "same" else {actor.motion}
        barred = {*taken, *ALSO_SEEN.get(actor.motion, ()), *(("spins",) if actor.shape in ROUND else ())}
        misses["motion"] += [_with(story, number, motion=m) for m in MOTIONS if m not in barred]
        if OPPOSITES.get(actor.motion, actor.motion) not in taken:
            misses["direction"].append(_with(story, number, motion=OPPOSITES[actor.motion]))
    if story.kind in ("single", "count"):
        misses["count"] = [replace(story, kind="count", count=count) for count in NUMBERS if count != story.count]
    return {name: stories for name, stories in misses.items() if stories}


def tell(story: Story, rng: np.random.Generator | None = None) -> str:
    """Puts a story into words: the canonical ones without a generator, else random ones."""
    return tell_with_phrases(story, rng).text


def tell_with_phrases(story: Story, rng: np.random.Generator | None = None) -> Told:
    """Puts a story into words as `tell` does, and says where its phrases stand."""
    a, b = story.actors[0], story.actors[-1]
    first, second = (pick(VERBS[actor.motion], rng) for actor in (a, b))
    told = pick(TEMPLATES[story.kind], rng).format(
        a=_marked(FIRST_NOUN, noun_phrase(a[:3], story.count, rng)),
        b=_marked(SECOND_NOUN, noun_phrase(b[:3], 1, rng)),
        m=_marked(FIRST_VERB, first if story.count > 1 else inflected(first, "s")),
        n=_marked(SECOND_VERB, inflected(second, "s")),
        ming=_marked(FIRST_VERB, inflected(first, "ing")),
        ning=_marked(SECOND_VERB, inflected(second, "ing")),
    )
    return _without_marks(_told_beside(told, story.still, rng) if story.still else told)


def told_beside(told: str, still: Noun, rng: np.random.Generator | None = None) -> str:
    """Adds the bystander to a caption."""
    return _without_marks(_told_beside(told, still, rng)).text


def _told_beside(told: str, still: Noun, rng: np.random.Generator | None) -> str:
    phrase = _marked(STILL_NOUN, noun_phrase(still, 0, rng))
    return re.sub(f" a (?={STILL_NOUN}?orange)", " an ", pick(STILL_TEMPLATES, rng).format(told=told, still=phrase))


def _marked(mark: str, phrase: str) -> str:
    return f"{mark}{phrase}{END_MARK}"


def _without_marks(marked: str) -> Told:
    """Takes the marks out of a caption, and says where they stood."""
    text, phrases, start = "", [], 0
    opened = ""
    for part in re.split(f"([{''.join(MARKS)}{END_MARK}])", marked):
        if part in MARKS:
            opened, start = part, len(text)
        elif part == END_MARK:
            phrases.append(ToldPhrase(*MARKS[opened], start, len(text)))
        else:
            text += part
    return Told(text, tuple(phrases))


def noun_phrase(noun: Noun, count: int = 0, rng: np.random.Generator | None = None) -> str:
    """Returns `small red circle` for a count of 0, `a small red circle` for 1, `two small red circles` for 2.

    Medium size is left out.
    """
    size, colour, shape = noun
    words = [pick(SIZE_WORDS[size], rng), colour, pick(SHAPE_WORDS.get(shape, (shape,)), rng)]
    phrase = " ".join(word for word in words if word)
    if count == 0:
        return phrase
    if count == 1:
        return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
    return f"{NUMBERS[count]} {plural(phrase)}"


def plural(phrase: str) -> str:
    """Returns the plural: `red cross` -> `red crosses`."""
    return f"{phrase}{'es' if phrase.endswith('s') else 's'}"


def inflected(verb: str, ending: str) -> str:
    """Inflects a verb of `VERBS` by regular spelling rules: `move left` -> `moves left` or `moving left`."""
    head, _, rest = verb.partition(" ")
    if ending == "ing":
        doubled = {"spin": "spinn", "get": "gett", "hop": "hopp", "throb": "throbb"}
        head = doubled.get(head, head[:-1] if head.endswith("e") else head)
    elif head.endswith(("sh", "o")):
        head += "e"
    return f"{head}{ending} {rest}".strip()


def _with(story: Story, number: int, **change: str) -> Story:
    """Changes one attribute of one event; of both events if they share a thing that is told once."""
    whole = story.kind == "same" and "motion" not in change
    actors = tuple(a._replace(**change) if whole or n == number else a for n, a in enumerate(story.actors))
    return replace(story, actors=actors)


def pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    """Picks an option: the first, canonical one without a generator, else a random one."""
    return options[0] if rng is None else options[rng.integers(len(options))]
