"""Grounding: what is measured, and that maps which point at the right moment get the best figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hbi_infer.model.tokenizer import TokenBatch, Tokenizer, clip_tokenizer_json
from hbi_infer.options import FrameSampling
from hbi_infer.tokens.levels import Levels, LevelTokens
from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.data.records import Phrase, VideoRecord
from hbi_training.evaluation.evaluate import evaluate
from hbi_training.evaluation.grounding import (
    effective_number,
    mass_inside,
    measure_grounding,
    phrase_words,
    pointing,
    telling_of,
)
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import tiny_recipe
from tests.builders.video_files import write_video

CAPTION = "A ring blinks; then a wobbler shakes"
PIECES = ["[start]", "a", "ring", "blinks", ";", "then", "a", "wob·", "bler", "shakes", "[end]"]
SHARES = np.array([0.0, 1.0, 0.5])


def phrase(text: str, kind: str = "verb", begin: float = 0.0, end: float = 2.0) -> Phrase:
    return Phrase(CAPTION, CAPTION.index(text), text, kind, begin, end)


@pytest.mark.parametrize(
    ("values", "pointed", "mass"),
    [
        ([0.1, 0.7, 0.2], 1.0, 0.8),
        ([0.6, 0.3, -0.1], 0.0, 1 / 3),
        ([0.4, 0.2, 0.4], 0.25, 0.4),
        ([-1.0, -2.0, -0.5], 0.5, None),
    ],
)
def test_a_map_by_hand(values: list[float], pointed: float, mass: float | None) -> None:
    assert pointing(np.array(values), SHARES) == pytest.approx(pointed)
    assert mass_inside(np.array(values), SHARES) == pytest.approx(mass)


def test_the_effective_number_of_weights() -> None:
    assert effective_number(np.array([0.5, 0.5, 0.0])) == pytest.approx(2)
    assert effective_number(np.array([1.0, 0.0])) == 1
    assert 1 < effective_number(np.array([0.9, 0.1])) < 1.5


@pytest.mark.parametrize(
    ("text", "places"),
    [("A ring", {1, 2}), ("blinks", {3}), ("a wobbler", {6, 7, 8}), ("wobbler shakes", {7, 8, 9}), ("bler", {8})],
)
def test_a_phrase_is_found_among_the_pieces_of_its_caption(text: str, places: set[int]) -> None:
    assert phrase_words(PIECES, phrase(text)) == places


def test_a_phrase_that_was_cut_off_or_that_no_piece_shows_is_left_out() -> None:
    assert phrase_words([*PIECES[:6], "[end]"], phrase("shakes")) == set()
    assert phrase_words(["[start]", "a", r"\xf0·", "ring", "[end]"], phrase("blinks")) == set()


@pytest.mark.parametrize(
    ("first", "second", "telling"),
    [
        ((0.0, 2.0), (2.0, 4.0), "in_order"),
        ((2.0, 4.0), (0.0, 2.0), "reversed"),
        ((0.0, 2.0), (1.0, 3.0), "at_once"),
        ((0.0, 2.0), (0.0, 2.0), "alone"),
    ],
)
def test_the_order_of_telling(first: tuple[float, float], second: tuple[float, float], telling: str) -> None:
    told = [phrase("shakes", "verb", *second), phrase("blinks", "verb", *first)]
    assert telling_of(told) == telling, "the places in the caption count, not the order of the list"
    assert telling_of(told[:1]) == "alone"


class Told:
    """An encoder whose words are axes: a frame is most like the word that belongs to its half of the clip."""

    def __init__(self, halves: tuple[str, str]) -> None:
        self.tokenizer = Tokenizer.from_json(clip_tokenizer_json([CAPTION]))
        self.halves = halves

    def encode_tokens(self, batch: TokenBatch) -> Levels:
        axes = np.eye(self.tokenizer.vocabulary_size, dtype=np.float32)[batch.ids]
        return {"entity": LevelTokens(axes, (batch.mask / batch.mask.sum(1, keepdims=True)).astype(np.float32))}

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        tokens = np.full((*mask.shape, self.tokenizer.vocabulary_size), 0.01, np.float32)
        for half, word in enumerate(self.halves):
            axis = self.tokenizer.encode([word], 8).ids[0, 1]
            tokens[:, half * mask.shape[1] // 2 : (half + 1) * mask.shape[1] // 2, axis] = 1
        return {"entity": LevelTokens(tokens, (mask / mask.sum(1, keepdims=True)).astype(np.float32))}


@pytest.fixture
def clip(tmp_path: Path) -> tuple[list[VideoRecord], FrameCache]:
    write_video(tmp_path / "a.mp4", num_frames=40, frames_per_second=10)
    phrases = (phrase("blinks"), phrase("shakes", begin=2.0, end=4.0), phrase("A ring", "noun", end=4.0))
    records = [VideoRecord(tmp_path / "a.mp4", (CAPTION,), phrases=phrases)]
    cache = FrameCache(tmp_path / "frames", records, FrameSampling(frames_per_second=2.0, max_frames=8, image_size=64))
    cache.fill(workers=0)
    return records, cache


def test_a_model_that_knows_the_moments_gets_all_and_one_that_reverses_them_none(
    clip: tuple[list[VideoRecord], FrameCache],
) -> None:
    right = measure_grounding(Told(("blinks", "shakes")), *clip, max_words=32)
    assert right["entity/verb/pointing/interaction"] == right["entity/verb/pointing/cosine"] == 100
    assert right["entity/verb/mass_inside/interaction"] > 95
    assert right["entity/verb/chance"] == right["entity/verb/pointing/frame_weights"] == 50
    assert right["entity/effective_frames"] == pytest.approx(8)
    assert right["entity/effective_words"] == pytest.approx(11, abs=1)
    assert right["entity/weight_of_marks"] == pytest.approx(200 / right["entity/effective_words"], rel=1e-3)
    assert right["entity/deletion/interaction"] > right["entity/deletion/random"]
    assert not any("noun" in name for name in right), "a phrase of the whole clip says nothing"
    assert right["entity/verb/in_order/pointing/interaction"] == 100
    assert not any("reversed" in name for name in right)

    wrong = measure_grounding(Told(("shakes", "blinks")), *clip, max_words=32)
    assert wrong["entity/verb/pointing/interaction"] == wrong["entity/verb/pointing/cosine"] == 0
    assert wrong["entity/verb/mass_inside/interaction"] < 5


def test_a_model_is_measured_where_captions_have_phrases(splits: tuple[Split, Split], tmp_path: Path) -> None:
    validation = splits[1]
    trainer = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    model, tokenizer = trainer.model, trainer.tokenizer
    found = evaluate(model, validation.records, validation.cache, tokenizer).metrics
    measured: dict[str, Any] = {name: value for name, value in found.items() if name.startswith("grounding/")}
    for level in ("entity", "action", "event"):
        assert 0 <= measured[f"grounding/{level}/verb/pointing/interaction"] <= 100
    bare = [VideoRecord(record.video, record.captions) for record in validation.records]
    assert not any("grounding" in name for name in evaluate(model, bare, validation.cache, tokenizer).metrics)
