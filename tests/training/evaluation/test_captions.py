"""Caption metrics against coco-caption's scores (tests/golden/make_caption_scores.py), and by their properties."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import TrainingError
from hbi_training.evaluation.captions import Cider, caption_metrics, words
from hbi_training.evaluation.meteor import Matches, matches, meteor
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "caption_scores.json").read_text())

METRICS = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")

VOCABULARY = st.sampled_from(["a", "man", "men", "sings", "singing", "song", "red", "the", "is", "running"])

CAPTIONS = st.lists(VOCABULARY, min_size=1, max_size=8).map(" ".join)

CORPORA = st.lists(st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=3)), min_size=1, max_size=5)


def texts(corpus: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    return [s["candidate"] for s in corpus["sets"]], [s["references"] for s in corpus["sets"]]


def official(corpus: dict[str, Any], name: str) -> float:
    return 100 * float(corpus["official"][name]["corpus"])


class TestOfficialScores:
    @pytest.mark.parametrize("name", ["BLEU-4", "ROUGE-L", "CIDEr"])
    def test_of_plain_words_they_are_ours(self, name: str) -> None:
        corpus = GOLDEN["plain"]
        assert caption_metrics(*texts(corpus))[name] == pytest.approx(official(corpus, name), rel=1e-9)

    def test_of_each_plain_caption_they_are_ours(self) -> None:
        candidates, references = texts(GOLDEN["plain"])
        each = GOLDEN["plain"]["official"]
        cider = Cider(references).scores(candidates, references)
        assert cider == pytest.approx(100 * np.array(each["CIDEr"]["each"]), rel=1e-9)
        rouge = [caption_metrics([a], [b])["ROUGE-L"] for a, b in zip(candidates, references, strict=True)]
        assert rouge == pytest.approx(100 * np.array(each["ROUGE-L"]["each"]), rel=1e-9)

    def test_meteor_is_the_official_one_of_exact_words_and_stems(self) -> None:
        """To the last digit where all words count alike; else as far as our list of function words is theirs."""
        candidates, references = texts(GOLDEN["plain"])
        pairs = [(words(a), [words(text) for text in b]) for a, b in zip(candidates, references, strict=True)]
        even = [max((matches(a, r, delta=0.5) for r in b), key=Matches.score) for a, b in pairs]
        each = GOLDEN["plain"]["official"]["METEOR-even"]["each"]
        assert [part.score() for part in even] == pytest.approx(each, rel=1e-12)
        whole = Matches(*(sum(column) for column in zip(*even, strict=True))).score()
        assert 100 * whole == pytest.approx(official(GOLDEN["plain"], "METEOR-even"), rel=1e-12)
        ours = 100 * meteor(*zip(*pairs, strict=True))
        assert ours == pytest.approx(official(GOLDEN["plain"], "METEOR-exact-stem"), abs=0.1)

    @pytest.mark.parametrize(("corpus", "lower"), [("plain", 2.65), ("punctuated", 4.47)])
    def test_meteor_is_lower_than_with_synonyms_and_paraphrases(self, corpus: str, lower: float) -> None:
        ours = caption_metrics(*texts(GOLDEN[corpus]))["METEOR"]
        assert official(GOLDEN[corpus], "METEOR") - ours == pytest.approx(lower, abs=0.01)

    @pytest.mark.parametrize(
        ("name", "within"), [("BLEU-4", 1e-6), ("ROUGE-L", 0.3), ("CIDEr", 0.8), ("METEOR-exact-stem", 0.3)]
    )
    def test_of_punctuated_texts_they_differ_by_a_bracket(self, name: str, within: float) -> None:
        """One text of 40 has brackets, which are words there; and METEOR cuts some words once more by itself."""
        ours = caption_metrics(*texts(GOLDEN["punctuated"]))[name.removesuffix("-exact-stem")]
        assert ours == pytest.approx(official(GOLDEN["punctuated"], name), abs=within)

    @pytest.mark.parametrize("corpus", GOLDEN.values(), ids=GOLDEN)
    def test_words(self, corpus: dict[str, Any]) -> None:
        for given_texts, tokens in zip(corpus["sets"], corpus["official"]["tokens"], strict=True):
            for text, cut in zip((given_texts["candidate"], *given_texts["references"]), tokens, strict=True):
                assert words(text) == [word for word in cut.split() if word not in ("-lrb-", "-rrb-")]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("", ""),
        ("...", ""),
        ("A man,a woman: 5:30 and 1,000.50!", "a man a woman 5:30 and 1,000.50"),
        (
            "I can't; won't. She\N{RIGHT SINGLE QUOTATION MARK}s the dogs' \"owner\"",
            "i ca n't wo n't she 's the dogs owner",
        ),
        ("and/or a 3-year-old - $5 & 7%", "and/or a 3-year-old $ 5 & 7 %"),
        ("un caf\N{LATIN SMALL LETTER E WITH ACUTE}\n\tnoir", "un caf\N{LATIN SMALL LETTER E WITH ACUTE} noir"),
    ],
)
def test_words_by_hand(text: str, cut: str) -> None:
    assert words(text) == cut.split()


class TestCaptionMetrics:
    @given(CORPORA)
    @settings(max_examples=60, deadline=None)
    def test_the_order_of_clips_and_of_references_is_the_same(self, corpus: list[tuple[str, list[str]]]) -> None:
        metrics = caption_metrics(*zip(*corpus, strict=True))
        assert tuple(metrics) == METRICS
        assert all(0 <= metrics[name] <= (1000 if name == "CIDEr" else 100) + 1e-9 for name in METRICS)
        assert caption_metrics(*zip(*corpus[::-1], strict=True)) == pytest.approx(metrics)
        turned = caption_metrics(*zip(*((text, references[::-1]) for text, references in corpus), strict=True))
        # Of references that share no word with the candidate, METEOR counts the first one's, as the official one does.
        assert turned | {"METEOR": metrics["METEOR"]} == pytest.approx(metrics)

    def test_a_right_caption_has_full_marks_and_an_empty_one_none(self) -> None:
        told = ["a red circle moves left", "two small yellow rings blink"]
        full = {"BLEU-4": 100, "METEOR": 100, "ROUGE-L": 100, "CIDEr": 1000}
        assert caption_metrics(told, [[text] for text in told]) == pytest.approx(full)
        assert caption_metrics(["", "..."], [[text] for text in told]) == dict.fromkeys(METRICS, 0)
        assert caption_metrics(told, [["!"], ["?"]]) == dict.fromkeys(METRICS, 0)

    def test_what_cannot_be_measured(self) -> None:
        with pytest.raises(TrainingError, match="there are no captions to measure"):
            caption_metrics([], [])
        with pytest.raises(TrainingError, match="caption 1 has no reference to compare with"):
            caption_metrics(["a", "b"], [["a"], []])
        with pytest.raises(ValueError, match="2 candidates cannot be compared with the references of 1"):
            caption_metrics(["a", "b"], [["a"]])
        with pytest.raises(TrainingError, match="CIDEr needs the captions of a corpus"):
            Cider([])


class TestCider:
    def test_frequencies_are_of_the_corpus_and_not_of_the_batch(self) -> None:
        candidates, references = texts(GOLDEN["plain"])
        cider = Cider(references)
        whole = cider.scores(candidates, references)
        assert cider.scores(candidates[3:5], references[3:5]) == pytest.approx(whole[3:5])
        assert Cider(references[3:5]).scores(candidates[3:5], references[3:5]) != pytest.approx(whole[3:5])

    def test_rare_words_count_more(self) -> None:
        corpus = [["a man sings"], ["a man runs"], ["a dog barks"]]
        sings, runs, unknown = Cider(corpus).scores(["a man sings", "a man", "a man yodels"], [["a man sings"]] * 3)
        assert sings > runs > 0
        assert sings > unknown > 0

    def test_it_needs_references(self) -> None:
        with pytest.raises(TrainingError, match="caption 0 has no reference"):
            Cider([["a"]]).scores(["a"], [[]])
