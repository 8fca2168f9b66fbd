"""Answers in Python: out of an index and from the video, of the best clip and of each, and what is no question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError, IndexStoreError, InputError, VideoError
from hbi_infer.index.clip_tokens import Clips, clips_of_index, clips_of_video, video_tokens
from hbi_infer.options import Answering, Filter
from hbi_infer.tasks.qa import CLIPS_AT_ONCE, PAIRS_AT_ONCE, Answer, check_questions, encode_questions
from hbi_infer.tasks.qa import answer_clips as answer_encoded
from hbi_infer.tasks.texts import QueryTruncatedWarning
from tests.builders.tiny_bundle import write_tiny_bundle, write_video
from tests.builders.unfamiliar import write_bundle_without_red
from tests.builders.video_files import spoil

QUESTION = "what is red?"
"""It names red, so that the tiny model answers with another colour, or with none where it saw red."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "qa"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one colour, of one after the other, and of two at once in its first clip."""
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "more" / "mixed.mp4", "red", "blue", "green", "green", seconds_each=1.0)
    (folder / "damaged.mp4").write_bytes(b"\0" * 100)
    return folder


@pytest.fixture(scope="module")
def index(folder: Path, model: HBI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index.open(folder, model, location=tmp_path_factory.mktemp("index") / "i.sqlite") as index:
        index.update(workers=1)
        yield index


def test_an_answer_says_everything(model: HBI, folder: Path) -> None:
    answer = model.answer(folder / "red.mp4", "what colour?")
    assert (answer.text, answer.is_confident, answer.question) == ("red", True, "what colour?")
    assert (answer.path, answer.clip, answer.start_seconds, answer.end_seconds) == (folder / "red.mp4", 1, 0.0, 2.0)
    assert answer.choices[0].text == "red"
    assert len(answer.choices) == 3
    assert answer.probability == answer.choices[0].probability > 0.95
    assert sum(choice.probability for choice in answer.choices) == pytest.approx(1)
    document = json.loads(json.dumps(answer.to_json()))
    assert document["path"] == str(folder / "red.mp4")
    assert document["choices"][0] == {"text": "red", "probability": answer.probability}


def test_probabilities_are_the_softmax_of_the_logits(model: HBI, folder: Path) -> None:
    (clip,) = model_clips(model, folder / "red.mp4").batches(1)
    logits = model.answer_logits(model.encode_text([QUESTION]), clip.levels)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    answer = model.answer(folder / "red.mp4", QUESTION, Answering(min_probability=0))
    manifest = model.bundle.manifest.answers
    found = {choice.text: choice.probability for choice in answer.choices}
    np.testing.assert_allclose([found[text] for text in manifest], expected, rtol=1e-6)


def model_clips(model: HBI, video: Path) -> Clips:
    return clips_of_video(video_tokens(model, video))


def answer_clips(
    model: HBI, questions: list[str], clips: Clips, options: Answering | None = None
) -> list[list[Answer]]:
    return answer_encoded(model, encode_questions(model, questions), clips, options)


def test_the_question_matters_and_doubt_is_said(model: HBI, folder: Path) -> None:
    doubtful = model.answer(folder / "red.mp4", QUESTION)
    assert (doubtful.text, doubtful.is_confident) == (None, False)
    assert doubtful.probability == pytest.approx(0.5, abs=0.01)
    given = model.answer(folder / "red.mp4", QUESTION, Answering(min_probability=0.4, top_k=1))
    assert given.text in ("green", "blue")
    assert len(given.choices) == 1
    assert given.probability == doubtful.probability


def test_the_clip_with_the_most_probable_answer_counts(model: HBI, index: Index, folder: Path) -> None:
    mixed = folder / "more" / "mixed.mp4"
    best = model.answer(mixed, "what colour?")
    assert (best.text, best.clip, best.start_seconds) == ("green", 2, 2.0)
    (every,) = answer_clips(model, ["what colour?"], model_clips(model, mixed), Answering(all_clips=True))
    assert [answer.clip for answer in every] == [1, 2]
    assert every[0].text is None
    assert every[1] == best
    assert max(every, key=lambda answer: answer.probability) == best
    of_folder = index.answer("what colour?")
    assert [(answer.path.name, answer.clip, answer.text) for answer in of_folder] == [
        ("mixed.mp4", 2, "green"),
        ("red.mp4", 1, "red"),
    ]
    assert len(index.answer("what colour?", Answering(all_clips=True))) == 3


def test_from_the_index_it_is_the_same_to_half_precision(model: HBI, index: Index, folder: Path) -> None:
    decoded = {answer.path: answer for answer in [model.answer(folder / "red.mp4", "what colour?")]}
    stored = {answer.path: answer for answer in index.answer("what colour?", where=Filter(path_glob="red*"))}
    assert stored.keys() == decoded.keys()
    for path, answer in stored.items():
        assert answer.text == decoded[path].text
        assert answer.probability == pytest.approx(decoded[path].probability, abs=1e-3)


def test_an_indexed_video_is_not_decoded(model: HBI, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    location = tmp_path / "i.sqlite"
    with Index.open(video.parent, model, location=location) as index:
        index.update(workers=1)
    spoil(video)
    assert model.answer(video, "what colour?", videos=video.parent, location=location).text == "red"
    with pytest.raises(VideoError, match=r"red\.mp4"):
        model.answer(video, "what colour?")
    video.unlink()
    assert model.answer(video, "what colour?", videos=video.parent, location=location).text == "red"


def test_many_questions_about_many_clips_in_blocks(
    model: HBI, index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["what colour?", "is it red?", "is it green then blue?", "is a video?"]
    clips = clips_of_index(index)
    options = Answering(all_clips=True)
    alone = [answer_clips(model, [question], clips, options)[0] for question in questions]
    for pairs, rows in ((PAIRS_AT_ONCE, CLIPS_AT_ONCE), (5, CLIPS_AT_ONCE), (1, 2)):
        monkeypatch.setattr("hbi_infer.tasks.qa.PAIRS_AT_ONCE", pairs)
        monkeypatch.setattr("hbi_infer.tasks.qa.CLIPS_AT_ONCE", rows)
        together = answer_clips(model, questions, clips, options)
        for one, other in zip(alone, together, strict=True):
            assert [(a.question, a.path, a.clip, a.text) for a in one] == [
                (a.question, a.path, a.clip, a.text) for a in other
            ]
            np.testing.assert_allclose([a.probability for a in one], [a.probability for a in other], rtol=1e-5)
    with pytest.raises(InputError, match="there is no question"):
        answer_clips(model, [], clips)


def test_clips_that_are_gone_are_left_out(model: HBI, folder: Path, tmp_path: Path) -> None:
    """Another process may change the index between looking and reading."""
    with Index.open(folder, model, location=tmp_path / "i.sqlite") as index:
        index.update(workers=1)
        clips = clips_of_index(index)
        index.store.remove(["more/mixed.mp4"])
        (answers,) = answer_clips(model, ["what colour?"], clips)
        assert [answer.path.name for answer in answers] == ["red.mp4"]


def test_damaged_tokens_are_told(model: HBI, folder: Path, tmp_path: Path) -> None:
    with Index.open(folder, model, location=tmp_path / "i.sqlite") as index:
        index.update(workers=1)
        with index.store._transaction() as execute:
            execute("UPDATE tokens SET record = zeroblob(length(record))")
        with pytest.raises(
            IndexStoreError, match=r"damaged \(tokens that make no sense\): make it anew with --rebuild"
        ):
            index.answer("what colour?")


def test_a_question_that_is_too_long(model: HBI, folder: Path) -> None:
    with pytest.warns(QueryTruncatedWarning, match=r"the question 'what colour then .* cut at word"):
        answer = model.answer(folder / "red.mp4", "what colour then red then blue then green?")
    assert isinstance(answer, Answer)


@pytest.mark.parametrize(
    "question",
    ["what colour is it", "What's red", "HOW many", "is it red", "a red video?", "in which direction?", "какой цвет?"],
)
def test_what_is_a_question(question: str) -> None:
    check_questions([question])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "a question is empty: write one, such as 'what colour is the circle"),
        (" \n", "a question is empty"),
        (
            "a red video",
            "'a red video' is not a question: .* To find what a sentence describes, use hbi-infer retrieve",
        ),
        ("whatever", "is not a question"),
        ("123", "is not a question: write one that ends in a question mark or begins with a word such as what"),
    ],
)
def test_what_is_no_question(model: HBI, folder: Path, question: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.answer(folder / "red.mp4", question)
    with pytest.raises(InputError, match=message):
        check_questions(["what is it?", question])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"min_probability": 1.5}, "min_probability is 1.5; it must be from 0 to 1"),
        ({"min_probability": float("nan")}, "min_probability is nan"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Answering(**options)  # type: ignore[arg-type]


def test_a_bundle_that_cannot_answer(folder: Path, tmp_path: Path) -> None:
    model = HBI.load(write_tiny_bundle(tmp_path / "tiny"), device="cpu", threads=1)
    with pytest.raises(BundleError, match=r"does not do qa, only retrieve: train a model with 'hbi-train qa'"):
        model.answer(folder / "red.mp4", "what colour?")


def test_answers_about_clips_unlike_those_of_the_training_say_so(tmp_path: Path) -> None:
    model = HBI.load(write_bundle_without_red(tmp_path / "bundle", "qa"), device="cpu", threads=1)
    red, both = write_video(tmp_path / "red.mp4", "red"), write_video(tmp_path / "both.mp4", "green", "blue")
    answers = [model.answer(video, "what colour?") for video in (red, both)]
    assert [answer.unfamiliar for answer in answers] == [True, False]
    assert answers[0].to_json()["unfamiliar"] is True
