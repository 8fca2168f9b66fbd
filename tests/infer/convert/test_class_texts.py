from __future__ import annotations

import json

import pytest

from hbi_infer.convert.class_texts import Synset, describe, find_synsets, read_names, read_synsets
from hbi_infer.errors import BundleError


def line(number: int, names: list[str], definition: str, kinds: list[int], part: str = "n") -> str:
    literals = "".join(f"<LITERAL>{name}<SENSE>1</SENSE><SR>ENG31-9-n<TYPE>X</TYPE></SR></LITERAL>" for name in names)
    relations = "".join(f"<SR>ENG31-{kind:08}-n<TYPE>HYPERNYM</TYPE></SR>" for kind in kinds)
    return (
        f"<SYNSET><ID>ENG31-{number:08}-{part}</ID><SYNONYM>{literals}</SYNONYM><POS>{part}</POS>"
        f"<DEF>{definition}</DEF><SR>ENG31-00000001-n<TYPE>HYPONYM</TYPE></SR>{relations}</SYNSET>"
    )


WORDNET = "\n".join(
    [
        "<SYNSETS>",
        line(1, ["thing"], "all there is", []),
        line(10, ["bird"], "it flies", [1]),
        line(20, ["cock", "rooster"], "an adult male chicken", [10]),
        line(30, ["crane"], "a wading bird", [10]),
        line(40, ["ostrich"], "a &quot;fast&quot; bird", [10]),
        line(50, ["barn"], "a building", [1]),
        line(60, ["crane"], "it lifts &amp; moves", [1]),
        line(65, ["jean", "denim"], "cotton cloth", [1]),
        line(70, ["door"], "a way in", [1]),
        line(75, ["jeans", "blue jean"], "trousers", [1]),
        line(80, ["window"], "a hole", [1]),
        line(30, ["crane"], "to stretch", [], part="v"),
        "</SYNSETS>",
    ]
).encode()
NAMES = [
    ("rooster", "cock"),
    ("crane",),
    ("ostrich",),
    ("barn",),
    ("crane",),
    ("door",),
    ("jean", "blue jean"),
    ("window",),
]


def test_only_nouns_are_read() -> None:
    synsets = read_synsets(WORDNET)
    assert synsets[30] == Synset(30, ("crane",), "a wading bird", (10,))
    assert synsets[40].definition == 'a "fast" bird'
    assert synsets[60].definition == "it lifts & moves"
    assert len(synsets) == 11


def test_names_of_several_meanings_are_told_apart_by_their_neighbours() -> None:
    found = find_synsets(NAMES, read_synsets(WORDNET))
    assert [synset.number for synset in found] == [20, 30, 40, 50, 60, 70, 75, 80]


def test_a_class_is_described_by_names_kinds_and_definition() -> None:
    synsets = read_synsets(WORDNET)
    assert describe(("rooster",), synsets[20], synsets) == [
        "a photo of a rooster",
        "a photo of a cock",
        "rooster, bird, thing",
        "rooster: an adult male chicken",
    ]


def test_a_circle_of_kinds_ends() -> None:
    synsets = {1: Synset(1, ("a",), "", (2,)), 2: Synset(2, ("b",), "", (1,))}
    assert describe(("a",), synsets[1], synsets)[1] == "a, b, a, b, a, b, a"


def test_what_is_not_wordnet() -> None:
    for content in (b"", b"<SYNSETS>", b"\xff"):
        with pytest.raises(BundleError, match="the nouns of WordNet cannot be read"):
            read_synsets(content)
    with pytest.raises(BundleError, match="WordNet has no noun unicorn"):
        find_synsets([("unicorn",)], read_synsets(WORDNET))


def test_names_of_classes() -> None:
    names = {str(number): f"a{number}, b{number}" for number in range(1000)}
    assert read_names(json.dumps(names).encode())[7] == ("a7", "b7")
    for content in (b"{", b"[]", b'{"0": 3}', json.dumps(dict(list(names.items())[:999])).encode()):
        with pytest.raises(BundleError, match="the names of ImageNet's classes cannot be read"):
            read_names(content)
