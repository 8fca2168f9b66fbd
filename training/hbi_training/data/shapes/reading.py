"""Parsing captions of `shapes`, and checking them against a scene.

The grammar is the one that writes captions, so the two cannot drift apart: the functions that `tell` calls make every
wording of a noun, a verb and a bystander, for every choice of their generator, and sentences are matched with the
templates of `tell`. The search finds every meaning that a sentence can have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import permutations, product
from string import Formatter
from typing import Any, cast

import numpy as np

from hbi_training.data.shapes.captions import (
    NUMBERS,
    TEMPLATES,
    VERBS,
    Noun,
    Story,
    inflected,
    noun_phrase,
    story_of,
    told_beside,
)
from hbi_training.data.shapes.scene import COLOURS, SHAPES, SIZES, Combination, Scene

ATTRIBUTES = ("colour", "shape", "motion", "order", "all")
WORD = re.compile(r"\w+")

Parts = Sequence[tuple[str, str | None]]
"""Parts of a template: the text before each field, and the field; the last may have none."""


Fields = Mapping[str, Mapping[str, Noun | str]]
"""Field of a template -> wordings that may fill it -> their meaning, a noun or a motion."""


@dataclass(frozen=True)
class Vocabulary:
    """Meanings of all wordings.

    Attributes:
        fields: Wordings of each field, by the number of actors.
        bystanders: Ends of captions that name a bystander.
    """

    fields: Mapping[int, Fields]
    bystanders: Mapping[str, Noun]


def read(caption: str) -> Story | None:
    """Parses a caption, or returns None if `tell` would never write it.

    Sizes that are not told are "medium". Simultaneous events, of which either may be told first, are sorted as by
    `in_order`.

    Example:
        >>> read("a small red disc sinks").actors
        (Combination(size='small', colour='red', shape='circle', motion='moves down'),)
    """
    found = readings(caption)
    return found.pop() if len(found) == 1 else None


def readings(caption: str) -> set[Story]:
    """Returns every meaning of a caption: one story for each caption of `tell`, none for other texts."""
    text = " ".join(caption.lower().split()).removesuffix(".")
    bystanders = vocabulary().bystanders
    found = set(_clauses(text, None))
    for start in range(len(text)):
        if text[start:] in bystanders:
            found |= set(_clauses(text[:start], bystanders[text[start:]]))
    return found


def attributes_right(caption: str, scene: Scene) -> dict[str, bool]:
    """Checks which attributes of a scene a caption has exactly right; motions that only look alike do not count.

    Events of the caption are paired with those of the scene so that most is right: if they are exchanged, only their
    order is wrong. Sizes and the bystander may be left out; if told, they must be true.

    Returns:
        "colour" and "shape" of everything that is told; "motion" of every event; "order", the event that comes first or
        their simultaneity, and with one event, that no other is told; "all", these and the sizes and counts. All are
        False for a text that cannot be parsed or that tells of more or fewer moving things.
    """
    told, truth = read(caption), in_order(story_of(scene))
    if told is None or _num_parties(told) != _num_parties(truth):
        return dict.fromkeys(ATTRIBUTES, False)
    right = max((_compared(told, truth, order) for order in permutations(range(len(told.actors)))), key=_num_right)
    if told.still is not None:
        still = None if scene.still is None else scene.things[scene.still]
        right["colour"] &= still is not None and told.still[1] == still.colour
        right["shape"] &= still is not None and told.still[2] == still.shape
        right["all"] &= right["colour"] and right["shape"] and still is not None and _size_fits(told.still, still.size)
    return right


def in_order(story: Story) -> Story:
    """Sorts simultaneous events of a story, for either order means the same."""
    return replace(story, actors=tuple(sorted(story.actors))) if story.kind == "together" else story


def _num_parties(story: Story) -> int:
    return 2 if story.kind in ("sequence", "together") else 1


def _num_right(right: Mapping[str, bool]) -> tuple[int, bool]:
    return right["colour"] + right["shape"] + right["motion"], right["order"]


def _size_fits(told: Sequence[str], size: str) -> bool:
    return told[0] in ("medium", size)


def _compared(told: Story, truth: Story, order: tuple[int, ...]) -> dict[str, bool]:
    """Checks the attributes with the told events, in this order, paired with the true ones."""
    pairs = [(told.actors[place], actor) for place, actor in zip(order, truth.actors, strict=False)]
    complete = len(told.actors) == len(truth.actors)
    together = told.kind == "together"
    right = {
        "colour": all(mine.colour == true.colour for mine, true in pairs),
        "shape": all(mine.shape == true.shape for mine, true in pairs),
        "motion": complete and all(mine.motion == true.motion for mine, true in pairs),
        "order": complete and together == (truth.kind == "together") and (together or order == tuple(sorted(order))),
    }
    sizes = all(_size_fits(mine, true.size) for mine, true in pairs)
    return {**right, "all": all(right.values()) and sizes and told.count == truth.count}


def _clauses(text: str, still: Noun | None) -> Iterator[Story]:
    """Yields every meaning of a caption without its bystander."""
    for kind, templates in TEMPLATES.items():
        for template, count in product(templates, NUMBERS if kind == "count" else (1,)):
            for found in _matches(list(_parts(template)), text, vocabulary().fields[count]):
                motions = [found[field] for pair in (("m", "ming"), ("n", "ning")) for field in pair if field in found]
                nouns: list[Noun] = [found["a"], found.get("b", found["a"])]
                actors = tuple(Combination(*who, does) for who, does in zip(nouns, motions, strict=False))
                yield in_order(Story(kind, actors, count, still))


def _matches(parts: Parts, text: str, fields: Fields) -> Iterator[dict[str, Any]]:
    """Yields the meaning of each field for every way to cut a text into a template's parts."""
    if not parts:
        if not text:
            yield {}
        return
    (before, field), *rest = parts
    if not text.startswith(before):
        return
    text = text.removeprefix(before)
    if field is None:
        yield from _matches(rest, text, fields)
        return
    meanings = fields[field]
    for end in (word.end() for word in WORD.finditer(text)):
        if text[:end] in meanings:
            for others in _matches(rest, text[end:], fields):
                yield {field: meanings[text[:end]], **others}


@cache
def _parts(template: str) -> Parts:
    return [(before, field) for before, field, _, _ in Formatter().parse(template)]


@cache
def vocabulary() -> Vocabulary:
    """Returns the meanings of all wordings."""
    nouns: list[Noun] = list(product(SIZES, COLOURS, SHAPES))

    def phrases(count: int) -> dict[str, Noun]:
        return {said: noun for noun in nouns for said in wordings(partial(noun_phrase, noun, count))}

    def verbs(form: Callable[[str], str]) -> dict[str, str]:
        return {form(verb): motion for motion, options in VERBS.items() for verb in options}

    told, telling = verbs(partial(inflected, ending="s")), verbs(partial(inflected, ending="ing"))
    common: dict[str, Mapping[str, Noun | str]] = {"b": phrases(1), "n": told, "ming": telling, "ning": telling}
    fields: dict[int, Fields] = {1: {**common, "a": phrases(1), "m": told}}
    fields |= {count: {**common, "a": phrases(count), "m": verbs(str)} for count in NUMBERS}
    return Vocabulary(fields, {said: noun for noun in nouns for said in wordings(partial(told_beside, "", noun))})


def wordings(say: Callable[[np.random.Generator], str]) -> list[str]:
    """Returns every text that a function of a generator can give, by making each of its choices in turn.

    Example:
        >>> from hbi_training.data.shapes.captions import pick
        >>> wordings(lambda rng: pick(("a", "b"), rng) + pick(("c", "d"), rng))
        ['ac', 'ad', 'bc', 'bd']
    """
    said = []
    script = _Script()
    while not script.is_done:
        said.append(say(cast("np.random.Generator", script)))
        script.turn()
    return said


class _Script:
    """Stand-in for a generator that plays all sequences of draws, one after the other."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int]] = []  # each draw, and its number of choices
        self.place = 0
        self.is_done = False

    def integers(self, high: int) -> int:
        if self.place == len(self.drawn):
            self.drawn.append((0, high))
        self.place += 1
        return self.drawn[self.place - 1][0]

    def turn(self) -> None:
        """Moves the last draw that has choices left to its next one, and restarts those after it."""
        while self.drawn and self.drawn[-1][0] + 1 == self.drawn[-1][1]:
            self.drawn.pop()
        self.is_done = not self.drawn
        if self.drawn:
            last, high = self.drawn[-1]
            self.drawn[-1] = (last + 1, high)
        self.place = 0
