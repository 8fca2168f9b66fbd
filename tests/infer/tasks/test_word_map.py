"""Which words belong to which moment: the map, its phrases, and the sentence that says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbi_infer.api import HBI
from hbi_infer.convert.converter import convert_model
from hbi_infer.model.content_words import Word
from hbi_infer.model.manifest import BundleManifest
from hbi_infer.tasks.explain import Explanation
from hbi_infer.tasks.texts import encode_texts
from hbi_infer.tasks.word_map import Phrase, WordMap, _phrases, best_grounded, content_shares
from hbi_infer.tokens.levels import unit
from hbi_infer.video.reader import decode
from tests.builders.tiny_bundle import write_tiny_bundle, write_video
from tests.builders.tiny_clip import write_tiny_clip

SECONDS = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
BORDERS = [1.0, 2.0, 3.0, 4.0, 5.0, 5.5]


def word(text: str, place: int, *, has_content: bool = True) -> Word:
    return Word(text, (place,), has_content)


def phrases(words: list[Word], values: list[list[float]]) -> list[Phrase]:
    return list(_phrases(words, np.array(values), SECONDS, BORDERS))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def made(model: HBI, tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    """Why a video that turns red at its end matches a text of two words of content."""
    folder = tmp_path_factory.mktemp("videos")
    video = write_video(folder / "one red.mp4", "green", "green", "green", "red", seconds_each=0.5)
    return model.explain(video, "a green then red video")


def test_the_map_is_the_interaction_of_the_words_alone(made: Explanation) -> None:
    word_map, entity = made.word_map, made.levels[0]
    assert (word_map.level, word_map.method) == ("entity", "interaction")
    assert word_map.words == ("a", "green", "then", "red", "video")
    np.testing.assert_allclose(word_map.values, entity.interaction[1:-1], atol=1e-12)


def test_the_map_points_at_the_red_frame(made: Explanation) -> None:
    red = made.word_map.values[made.word_map.words.index("red")]
    assert red.argmax() == 3
    told = [phrase for phrase in made.word_map.phrases if phrase.text == "red"]
    assert [(phrase.frames, phrase.start_seconds, phrase.end_seconds) for phrase in told] == [((3,), 1.5, 2.0)]
    assert "“red” " in made.word_map.sentence
    assert "to 1.5 to 2.0 s" in made.word_map.sentence


def test_a_moment_is_the_run_of_frames_that_keep_half_with_gaps_of_one() -> None:
    found = phrases([word("blinks", 1)], [[0.4, 0.6, 0.1, 1.0, 0.1, 0.1]])
    assert [(phrase.frames, phrase.start_seconds, phrase.end_seconds) for phrase in found] == [((1, 2, 3), 1.0, 4.0)]
    (last,) = phrases([word("blinks", 1)], [[0.9, 0.0, 0.0, 0.0, 0.5, 1.0]])
    assert (last.frames, last.start_seconds, last.end_seconds) == ((4, 5), 4.0, 5.5), "two frames apart is no gap"


def test_neighbours_that_share_their_moment_are_a_phrase_with_the_words_between() -> None:
    words = [word("jumps", 1), word("up", 2), word("and", 3, has_content=False), word("down", 4), word("sits", 5)]
    early, late = [1.0, 1.0, 0.8, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    found = phrases(words, [early, early, late, [0.9, 0.9, 0.0, 0.0, 0.0, 0.0], late])
    assert [(phrase.text, phrase.words, phrase.frames) for phrase in found] == [
        ("jumps up and down", (0, 1, 3), (0, 1, 2)),
        ("sits", (4,), (4, 5)),
    ]


def test_words_of_little_value_and_function_words_belong_nowhere() -> None:
    words = [word("runs", 1), word("dog", 2), word("the", 3, has_content=False)]
    strong, weak = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.2, 0.0, 0.0]
    assert [phrase.text for phrase in phrases(words, [strong, weak, strong])] == ["runs"]
    assert phrases(words, [[-1.0] * 6] * 3) == []
    assert phrases([], []) == []


def test_a_token_of_the_whole_text_is_no_phrase_and_does_not_hide_words() -> None:
    found = phrases([word("[sentence]", 0), word("runs", 1)], [[0.0, 9.0, 0, 0, 0, 0], [0.0, 0.0, 0.1, 0, 0, 0]])
    assert [(phrase.text, phrase.frames) for phrase in found] == [("runs", (2,))]


def test_a_word_between_that_belongs_nowhere_parts_a_phrase() -> None:
    words = [word("red", 1), word("small", 2), word("dog", 3)]
    strong, weak = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1, 0.0, 0.0]
    assert [phrase.text for phrase in phrases(words, [strong, weak, strong])] == ["red", "dog"]


def sentence_of(*found: Phrase) -> str:
    values = np.linspace(1.0, 0.1, 60).reshape(10, 6)
    words = tuple(f"w{row}" for row in range(10))
    return WordMap(level="entity", method="interaction", words=words, values=values, phrases=found).sentence


def test_the_sentence_names_the_strongest_phrases_and_their_moments() -> None:
    one = Phrase(text="runs", words=(0,), frames=(1, 2), start_seconds=1.0, end_seconds=3.04, is_everywhere=False)
    two = replace(one, text="sits", words=(1,), start_seconds=4.0, end_seconds=5.5)
    assert sentence_of(one) == "“runs” belongs to 1.0 to 3.0 s."
    assert sentence_of(two, one) == "“runs” belongs to 1.0 to 3.0 s and “sits” to 4.0 to 5.5 s."
    everywhere = replace(one, text="red dog", is_everywhere=True)
    assert sentence_of(everywhere, two) == "“sits” belongs to 4.0 to 5.5 s."
    assert sentence_of(everywhere) == "“red dog” belongs to the whole clip."
    assert sentence_of(everywhere, replace(everywhere, text="cat")) == "“red dog” and “cat” belong to the whole clip."
    assert sentence_of() == "No word belongs to a moment of this clip."
    many = [replace(one, text=f"w{row}", words=(row,)) for row in range(6)]
    assert sentence_of(*many).count("“") == 4


def with_metrics(manifest: BundleManifest, metrics: dict[str, Any]) -> BundleManifest:
    return replace(manifest, provenance=replace(manifest.provenance, metrics=metrics))


def test_the_level_is_the_one_that_was_measured_to_ground_best(model: HBI) -> None:
    manifest = model.bundle.manifest
    names = [level.name for level in manifest.levels]
    assert best_grounded(manifest) == names[0], "nothing was measured"
    pointing = {f"test/grounding/{name}/verb/pointing/interaction": 50.0 + n for n, name in enumerate(names)}
    assert best_grounded(with_metrics(manifest, pointing)) == names[-1]
    assert best_grounded(with_metrics(manifest, {**pointing, "data": "shapes"})) == names[-1]


def test_words_of_content_count_and_all_where_there_are_none(model: HBI) -> None:
    texts = encode_texts(model, ["then red", "then"], "query")
    pieces = model.tokenizer.pieces(texts.batch.ids[0].tolist())
    assert content_shares(model, texts, 0).tolist() == [float("red".startswith(piece)) for piece in pieces]
    assert set(content_shares(model, texts, 1).tolist()) == {1.0}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    """A model with one token for a whole text."""
    root = tmp_path_factory.mktemp("clip")
    convert_model(write_tiny_clip(root / "clip"), root / "bundle", name="clip")
    return HBI.load(root / "bundle", device="cpu", threads=1)


def test_a_model_of_one_token_leaves_each_word_out(single: HBI, tmp_path: Path) -> None:
    video = write_video(tmp_path / "one red.mp4", "green", "green", "green", "red", seconds_each=0.5)
    made = single.explain(video, "a red, moving square")
    word_map = made.word_map
    assert (word_map.method, word_map.words) == ("leaving out", ("red", "moving", "square"))
    texts = ["a red moving square", "a moving square", "a red square", "a red moving"]
    tokens = unit(single.encode_text(texts)[word_map.level].tokens[:, 0])
    clip = decode(video, single.bundle.manifest.sampling).clips[0]
    tokens_of_frames = single.encode_video(clip.frames[None], clip.mask[None])[word_map.level]
    cosines = tokens @ unit(tokens_of_frames.tokens[0])[tokens_of_frames.weights[0] > 0].T
    np.testing.assert_allclose(word_map.values, cosines[0] - cosines[1:], atol=1e-5)
    assert "left out in turn" in word_map.meaning
    assert single.explain(video, "red").word_map.words == ("red",)
