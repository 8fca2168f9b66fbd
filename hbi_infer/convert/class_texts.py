"""Texts that say what each class of ImageNet is: its names, what it is a kind of, and its definition in WordNet.

ImageNet's classes are synsets of WordNet 3.0 in the order of its file, and are known here by their names alone. WordNet
3.1 has them under other numbers in the same order. So a class whose names fit several synsets, as a crane does, is the
one between its neighbours.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hbi_infer.errors import BundleError

NUM_CLASSES = 1000
MOST_HYPERNYMS = 6
# A parser of XML takes ten times as long for these 45 MB.
NOUN = re.compile(r"<SYNSET><ID>ENG31-(\d+)-n</ID>")
NAME = re.compile(r"<LITERAL>([^<]+)<")
DEFINITION = re.compile(r"<DEF>([^<]*)</DEF>")
HYPERNYM = re.compile(r"<SR>ENG31-(\d+)-n<TYPE>HYPERNYM</TYPE></SR>")


@dataclass(frozen=True)
class Synset:
    """A meaning in WordNet.

    Attributes:
        number: Its place in WordNet's file of nouns.
        names: Words and phrases that mean it.
        definition: Its definition.
        hypernyms: Numbers of the meanings that it is a kind of.
    """

    number: int
    names: tuple[str, ...]
    definition: str
    hypernyms: tuple[int, ...]


def read_synsets(content: bytes) -> dict[int, Synset]:
    """Reads the nouns of WordNet from XML with a synset in each line.

    Raises:
        BundleError: The content is not WordNet.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise BundleError(f"the nouns of WordNet cannot be read: {error}") from error
    synsets = {int(begin[1]): _synset(int(begin[1]), line) for line in lines if (begin := NOUN.match(line))}
    if not synsets:
        raise BundleError("the nouns of WordNet cannot be read: there are none")
    return synsets


def _synset(number: int, line: str) -> Synset:
    definition = DEFINITION.search(line)
    return Synset(
        number=number,
        names=tuple(map(html.unescape, NAME.findall(line))),
        definition=html.unescape(definition[1]) if definition else "",
        hypernyms=tuple(map(int, HYPERNYM.findall(line))),
    )


def read_names(content: bytes) -> list[tuple[str, ...]]:
    """Reads the names of the classes from a JSON object of class number -> names, with commas between.

    Raises:
        BundleError: The content is something else.
    """
    try:
        document = json.loads(content)
        return [tuple(document[str(number)].split(", ")) for number in range(NUM_CLASSES)]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(f"the names of ImageNet's classes cannot be read: {error!r:.200}") from error


def find_synsets(names: Sequence[tuple[str, ...]], synsets: Mapping[int, Synset]) -> list[Synset]:
    """Finds the synset of each class.

    Args:
        names: Names of the classes, in the order of WordNet's file.
        synsets: Number -> noun.

    Raises:
        BundleError: No synset has any name of a class.
    """
    by_name: dict[str, list[Synset]] = {}
    for synset in synsets.values():
        for name in synset.names:
            by_name.setdefault(name.lower(), []).append(synset)
    candidates = [_candidates(own, by_name) for own in names]
    sure = [
        (place, synset.number)
        for place, found in enumerate(candidates)
        for synset, share in found.items()
        if share == 1 and list(found.values()).count(1) == 1
    ]
    return [_between(found, place, sure) for place, found in enumerate(candidates)]


def _candidates(names: tuple[str, ...], by_name: Mapping[str, list[Synset]]) -> dict[Synset, float]:
    """Returns the synsets that share a name with a class, with the share of all their names that they share."""
    wanted = {name.lower() for name in names}
    shares = {}
    for synset in (synset for name in names for synset in by_name.get(name.lower(), [])):
        own = {other.lower() for other in synset.names}
        shares[synset] = len(wanted & own) / len(wanted | own)
    if not shares:
        raise BundleError(f"WordNet has no noun {' or '.join(names)}")
    return shares


def _between(candidates: Mapping[Synset, float], place: int, sure: Sequence[tuple[int, int]]) -> Synset:
    """Returns the candidate between the sure neighbours of a class, or nearest to them; of several the most alike."""
    before = max((number for other, number in sure if other < place), default=0)
    after = min((number for other, number in sure if other > place), default=10**8)

    def badness(synset: Synset) -> tuple[int, float, int]:
        away = max(before - synset.number, synset.number - after, 0)
        return away, -candidates[synset], synset.number

    return min(candidates, key=badness)


def describe(names: Sequence[str], synset: Synset, synsets: Mapping[int, Synset]) -> list[str]:
    """Returns sentences that say what a class is.

    >>> dog = Synset(2, ("dog", "domestic dog"), "a member of the genus Canis", (1,))
    >>> describe(("dog",), dog, {1: Synset(1, ("animal",), "", ()), 2: dog})
    ['a photo of a dog', 'a photo of a domestic dog', 'dog, animal', 'dog: a member of the genus Canis']
    """
    label = names[0]
    kinds = [kind.names[0] for kind in _kinds(synset, synsets)]
    return [
        *(f"a photo of a {name}" for name in dict.fromkeys((*names, *synset.names))),
        ", ".join([label, *kinds]),
        f"{label}: {synset.definition}",
    ]


def _kinds(synset: Synset, synsets: Mapping[int, Synset]) -> list[Synset]:
    """Returns what a synset is a kind of, the nearest first."""
    found: list[Synset] = []
    while synset.hypernyms and synset.hypernyms[0] in synsets and len(found) < MOST_HYPERNYMS:
        synset = synsets[synset.hypernyms[0]]
        found.append(synset)
    return found
