"""Questions and captions in training: several questions a clip, clips without captions, a warm start, the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.batches import TrainingBatches
from hbi_training.data.frame_cache import Split
from hbi_training.data.shapes import captions_right, scenes, write_shapes
from hbi_training.evaluation.answers import answer_questions, calibration_error
from hbi_training.evaluation.evaluate import evaluate
from hbi_training.model.hbi import HBI
from hbi_training.run.trainer import Trainer, common_answers
from hbi_training.weights.checkpoint import Checkpoint, build_model, load_checkpoint, start_from
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, shapes_splits, tiny_recipe

ALL_TASKS: dict[str, Any] = {**HBI_SECTION, "reconstruction_layers": 1, "caption_layers": 1}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    return shapes_splits(tmp_path_factory.mktemp("shapes"))


def without_captions(split: Split) -> Split:
    records = [replace(record, captions=(), hard_negatives=()) for record in split.records]
    return Split(records, split.cache)


def batches_of(split: Split, num_questions: int) -> TrainingBatches:
    corpus = [question.question for record in split.records for question in record.questions]
    return TrainingBatches(
        split.records,
        split.cache,
        Tokenizer.from_json(clip_tokenizer_json(corpus)),
        rows=split.cache.decoded,
        batch_size=8,
        max_words=40,
        seed=0,
        answers=common_answers(split.records, 100),
        num_questions=num_questions,
    )


def test_the_questions_of_a_clip_stand_together(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    batches = batches_of(train, num_questions=3)
    answers = common_answers(train.records, 100)
    batch = batches[0]
    assert batch.question_ids is not None
    assert batch.question_mask is not None
    assert batch.answers is not None
    assert (len(batch.question_ids), len(batch.answers)) == (24, 24)
    for clip in range(8):
        caption = batches.tokenizer.decode(batch.token_ids[clip][batch.token_mask[clip]].tolist())
        record = next(record for record in train.records if caption in record.captions)
        rows = range(3 * clip, 3 * clip + 3)
        asked = {
            (
                batches.tokenizer.decode(batch.question_ids[row][batch.question_mask[row]].tolist()),
                answers[batch.answers[row]],
            )
            for row in rows
        }
        assert len(asked) == 3
        assert asked <= {(question.question, question.answer) for question in record.questions}


def test_a_question_stands_where_there_is_no_caption(splits: tuple[Split, Split]) -> None:
    silent = without_captions(splits[0])
    batches = batches_of(silent, num_questions=1)
    batch = batches[0]
    assert batch.question_ids is not None
    assert torch.equal(batch.token_ids, batch.question_ids)


def test_a_model_learns_from_questions_alone(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, validation = map(without_captions, splits)
    recipe = tiny_recipe(model={**HBI_SECTION, "reconstruction_layers": 1}, objective={"answering": 1.0})
    metrics = Trainer(recipe, train, validation, tmp_path, cpu=True).run()
    assert {name.split("/")[0] for name in metrics} == {"answer"}
    assert 0 <= metrics["answer/accuracy"] <= metrics["answer/top5"] <= 100
    with pytest.raises(TrainingError, match="captioning needs captions, and some clips of the data set have none"):
        Trainer(tiny_recipe(model=ALL_TASKS, objective={"captioning": 1.0}), train, validation, tmp_path, cpu=True)


def test_every_task_is_measured_and_the_answers_are_calibrated(splits: tuple[Split, Split], tmp_path: Path) -> None:
    objective = {"answering": 1.0, "questions": 2, "captioning": 1.0, "reconstruction": 0.5}
    said: list[str] = []
    trainer = Trainer(tiny_recipe(model=ALL_TASKS, objective=objective), *splits, tmp_path, say=said.append, cpu=True)
    metrics = trainer.run()
    expected = {"text_to_video/R@1", "answer/accuracy", "answer/accuracy/colour", "caption/CIDEr", "caption/BLEU-4"}
    assert expected <= metrics.keys()
    assert "answers right" in said[-1]
    assert "CIDEr" in said[-1]

    checkpoint = load_checkpoint(tmp_path / "model")
    model = checkpoint.model
    assert isinstance(model, HBI)
    temperature = model.config.answer_temperature
    assert temperature != 1.0
    answers = answer_questions(model, splits[1].records, splits[1].cache, checkpoint.tokenizer)
    assert metrics["answer/calibration_error"] == pytest.approx(calibration_error(answers, temperature), abs=0.1)
    written = checkpoint.provenance["metrics"]
    assert written["validation/answer/accuracy"] == pytest.approx(metrics["answer/accuracy"], abs=1e-3)
    found = evaluate(model, splits[1].records, splits[1].cache, checkpoint.tokenizer)
    assert found.metrics["answer/accuracy"] == pytest.approx(metrics["answer/accuracy"])
    assert found.captions is not None
    assert set(found.captions) == set(range(len(splits[1].records)))


def test_a_split_with_nothing_for_the_model_is_refused(splits: tuple[Split, Split]) -> None:
    silent = without_captions(splits[1])
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(["a red circle"]))
    with pytest.raises(TrainingError, match="the split has no captions, and no questions for this model"):
        evaluate(build_model(MEAN_POOLED_SECTION, tokenizer).eval(), silent.records, silent.cache, tokenizer)


def test_captions_are_read_back(tmp_path: Path) -> None:
    write_shapes(tmp_path, 10, 4, 1, seed=5, workers=1)
    lines = [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()]
    true = {Path(line["video"]).name: line["captions"][1] for line in lines}
    assert captions_right(tmp_path, "val", true)["all"] == 100.0
    near = {Path(line["video"]).name: line["hard_negatives"][0] for line in lines}
    assert captions_right(tmp_path, "val", {**near, **dict(list(true.items())[:2])})["all"] == 50.0
    assert len(list(scenes(5, "val", 4))) == 4


def test_a_model_starts_from_another_word_by_word() -> None:
    few, many = (clip_tokenizer_json(corpus) for corpus in (["a red ring"], ["what does a red ring do?", "it moves"]))
    old_words, new_words = Tokenizer.from_json(few), Tokenizer.from_json(many)
    torch.manual_seed(0)
    old, new = build_model(HBI_SECTION, old_words), build_model(ALL_TASKS, new_words)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    line = start_from(Checkpoint(old, few, "teacher"), new, new_words)
    given, after = old.state_dict(), new.state_dict()
    assert line == f"{len(given)} of {len(after)} tensors start from teacher"
    table = "word_encoder.text.embeddings.token_embedding.weight"
    for name, tensor in after.items():
        if name not in given:
            assert torch.equal(tensor, before[name]), name
        elif name != table:
            assert torch.equal(tensor, given[name]), name
    known, wanted = old_words.vocabulary(), new_words.vocabulary()
    assert len(wanted) > len(known)
    for token, row in wanted.items():
        expected = given[table][known[token]] if token in known else before[table][row]
        assert torch.equal(after[table][row], expected), token


def test_a_model_that_has_nothing_in_common_is_refused() -> None:
    tokenizer_json = clip_tokenizer_json(["a"])
    tokenizer = Tokenizer.from_json(tokenizer_json)
    model = build_model(HBI_SECTION, tokenizer)
    other = Checkpoint(build_model(HBI_SECTION, tokenizer), tokenizer_json, "empty")
    other.model.state_dict = dict  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="the model empty has nothing in common with that of the recipe"):
        start_from(other, model, tokenizer)


def hbi_train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from hbi_training.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_commands_train_for_questions_and_captions(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 16, 6, 6, seed=3, workers=1)
    recipe = tmp_path / "tiny.yaml"
    content = {
        "name": "tiny",
        "model": ALL_TASKS,
        "data": {"format": "manifest", "folder": str(tmp_path / "data"), "vocabulary": "corpus"},
        "objective": {"answering": 1.0},
        "optimiser": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "clip_learning_rate": 1e-3},
    }
    recipe.write_text(json.dumps(content))  # YAML holds JSON
    options = ["--recipe", recipe, "--out", tmp_path / "run", "--workers", 1, "--cpu"]
    refused = hbi_train("caption", *options)
    assert refused.returncode == 1
    assert "the recipe tiny does not train for caption: its objective.captioning is 0" in refused.stderr
    assert "--set objective.captioning=1" in refused.stderr
    trained = hbi_train("qa", *options)
    assert trained.returncode == 0, trained.stderr
    assert "answers right" in trained.stderr
    further = ["--set", f"initial={tmp_path / 'run' / 'model'}", "--set", "objective.captioning=1"]
    options[3] = tmp_path / "further"
    trained = hbi_train("caption", *options, *further)
    assert trained.returncode == 0, trained.stderr
    assert "start from tiny" in trained.stderr
    stages = load_checkpoint(tmp_path / "further" / "model").provenance["recipe"]
    assert stages["initial"] == load_checkpoint(tmp_path / "run" / "model").provenance["recipe"]

    model, failures = tmp_path / "further" / "model", tmp_path / "failures.jsonl"
    measured = hbi_train("evaluate", model, "--data", tmp_path / "data", "--failures", failures, "--save")
    assert measured.returncode == 0, measured.stderr
    figures = json.loads(measured.stdout)
    assert figures["test/caption/right/all"] == 0.0
    assert figures["test/clips"] == 6
    lines = [json.loads(line) for line in failures.read_text().splitlines()]
    wrong = [line for line in lines if "question" in line]
    assert len(wrong) == round(figures["test/answer/questions"] * (1 - figures["test/answer/accuracy"] / 100))
    assert all(line["said"] != line["answer"] and 0 < line["probability"] <= 1 for line in wrong)
    assert sum("captions" in line for line in lines) == 6
    assert load_checkpoint(model).provenance["metrics"]["test/answer/accuracy"] == figures["test/answer/accuracy"]


HEADS_ALONE = {"contrastive": 0, "deep_supervision": 0, "self_distillation": 0, "answering": 1.0, "captioning": 1.0}
FROZEN = ["frame_encoder", "word_encoder", "temporal_transformer", "text_hierarchy", "video_hierarchy", "logit_scale"]


def heads_recipe(**optimiser: Any) -> Any:
    options = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "frozen": FROZEN}
    data = {"format": "manifest", "folder": "unused", "vocabulary": "corpus"}
    return tiny_recipe(model=ALL_TASKS, objective=HEADS_ALONE, data=data, optimiser={**options, **optimiser})


def test_frozen_parts_stay_and_their_tokens_are_computed_once(splits: tuple[Split, Split], tmp_path: Path) -> None:
    said: list[str] = []
    trainer = Trainer(heads_recipe(), *splits, tmp_path, say=said.append, cpu=True)
    assert said == [f"computing the tokens of {len(splits[0].records)} clips, which stay as they are"]
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    # The same loss as with frames that are looked at.
    step, batch = trainer.step_module.eval(), trainer.batches[0]
    known, terms = step(batch)
    assert set(terms) == {"answer", "answer_levels", "caption"}
    tokens, step.known_tokens = step.known_tokens, None
    assert torch.allclose(step(batch)[0], known, rtol=1e-5)
    step.known_tokens = tokens
    trainer.run()
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"reconstruction", "answer_head", "caption_decoder"}

    again = Trainer(heads_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    assert again.step == 3


def test_a_part_that_cannot_be_frozen_is_named(splits: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="frozen names text_encoder, which the model does not have; it has frame_"):
        Trainer(heads_recipe(frozen=["text_encoder"]), *splits, tmp_path, cpu=True)
