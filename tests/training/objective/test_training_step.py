"""One forward pass of training, for every objective: its terms, what it moves, and what the model must have for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf.estimator import BanzhafEstimator, save_estimator
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import VideoRecord
from hbi_training.model.hbi import HBI
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import load_checkpoint
from tests.builders.tiny_training import (
    ALL_TASKS,
    HBI_SECTION,
    MEAN_POOLED_SECTION,
    WITH_RECONSTRUCTION,
    same_weights,
    tiny_recipe,
)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimator") / "estimator.safetensors"
    torch.manual_seed(0)
    save_estimator(BanzhafEstimator(4), path)
    return path


BANZHAF = [f"banzhaf_{level}" for level in ("entity", "action", "event")]

RECONSTRUCTION = [f"reconstruction_{level}" for level in ("entity", "action", "event")]


@pytest.mark.parametrize(
    ("model", "objective", "terms"),
    [
        (HBI_SECTION, {"banzhaf": 1.0}, BANZHAF),
        (HBI_SECTION, {"banzhaf": 1.0, "banzhaf_samples": 2, "hard_negatives": 1}, BANZHAF),
        (WITH_RECONSTRUCTION, {"reconstruction": 1.0, "hard_negatives": 2}, RECONSTRUCTION),
        (WITH_RECONSTRUCTION, {"reconstruction": 1.0, "banzhaf": 0.5}, RECONSTRUCTION + BANZHAF),
        (HBI_SECTION, {"variant": "released", "banzhaf": 1.0, "estimator": "to be filled in"}, BANZHAF),
        (HBI_SECTION, {"answering": 1.0}, ["answer", "answer_levels"]),
        (ALL_TASKS, {"captioning": 0.5}, ["caption"]),
        (ALL_TASKS, {"captioning": 0.5, "answering": 1.0, "reconstruction": 1.0}, ["caption", "answer"]),
    ],
)
def test_objectives_train(
    splits: tuple[Split, Split],
    tmp_path: Path,
    estimator: Path,
    model: dict[str, Any],
    objective: dict[str, Any],
    terms: list[str],
) -> None:
    if "estimator" in objective:
        objective = {**objective, "estimator": str(estimator)}
    trainer = Trainer(tiny_recipe(model=model, objective=objective), *splits, tmp_path, cpu=True)
    before = {name: tensor.clone() for name, tensor in trainer.step_module.state_dict().items()}
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss/total" in line]
    assert all(abs(line[f"loss/{term}"]) > 0 for line in losses for term in terms)
    after = trainer.step_module.state_dict()
    moved = {part(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {part(name) for name in before if not name.startswith("teacher.")}
    assert same_weights(load_checkpoint(tmp_path / "model").model, trainer.model)


def part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_what_the_model_lacks_is_said(splits: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs a model of kind hbi"):
        Trainer(tiny_recipe(model=MEAN_POOLED_SECTION, objective={"banzhaf": 1.0}), *splits, tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="needs a model with reconstruction_layers"):
        Trainer(tiny_recipe(objective={"reconstruction": 1.0}), *splits, tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="needs a model with caption_layers"):
        Trainer(tiny_recipe(objective={"captioning": 1.0}), *splits, tmp_path, cpu=True)
    silent = Split([VideoRecord(record.video, record.captions) for record in splits[0].records], splits[0].cache)
    with pytest.raises(TrainingError, match="and clips with questions"):
        Trainer(tiny_recipe(objective={"answering": 1.0}), silent, splits[1], tmp_path, cpu=True)


def test_questions_of_a_batch_are_asked_of_their_own_clips(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(objective={"answering": 1.0})
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    assert isinstance(trainer.model, HBI)
    answers = trainer.model.config.answers
    batch = trainer.batches[0]
    assert batch.question_ids is not None
    assert batch.answers is not None
    order = np.random.default_rng([recipe.seed, 0, 0]).permutation(len(trainer.batches.records))[:8]
    for row, number in enumerate(order):
        record = trainer.batches.records[number]
        asked = {q.question: q.answer for q in record.questions}
        encoded = {tuple(trainer.tokenizer.encode([q], 40).ids[0]): answer for q, answer in asked.items()}
        ids = tuple(batch.question_ids[row, : int(batch.question_mask[row].sum())].tolist())  # type: ignore[index]
        assert encoded[ids] == answers[batch.answers[row]]
    rare = trainer.batches
    rare.place_of_answer = {"no such answer": 0}
    assert rare[0].answers is not None
    assert (rare[0].answers == -1).all()
    loss, terms = trainer.step_module(rare[0])
    assert torch.isfinite(loss)
    assert terms["answer"] == 0
