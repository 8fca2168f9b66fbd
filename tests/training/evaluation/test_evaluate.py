"""Measuring a model on a split: every task that it can do, and reranking."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation.answers import answer_questions, calibration_error
from hbi_training.evaluation.evaluate import evaluate, evaluate_retrieval
from hbi_training.model.hbi import HBI
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import build_model, load_checkpoint
from tests.builders.tiny_training import (
    ALL_TASKS,
    MEAN_POOLED_SECTION,
    WITH_RECONSTRUCTION,
    tiny_recipe,
    without_captions,
)


def test_reranking_orders_the_best_by_reconstructed_tokens(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(model=WITH_RECONSTRUCTION, objective={"reconstruction": 1.0, "hard_negatives": 1})
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    model, validation = trainer.model, splits[1]
    assert isinstance(model, HBI)
    assert model.reconstruction is not None

    def measure(rerank: int) -> dict[str, float]:
        return evaluate_retrieval(model, validation.records, validation.cache, trainer.tokenizer, rerank=rerank)

    untrained = measure(3)
    for way in ("text_to_video", "video_to_text"):
        assert untrained[f"reranked/{way}/MnR"] == untrained[f"{way}/MnR"]  # the identity changes no order
    torch.nn.init.normal_(model.reconstruction.gate.weight, std=0.5)
    changed = measure(3)
    for way in ("text_to_video", "video_to_text"):
        assert changed[f"{way}/MnR"] == untrained[f"{way}/MnR"]
        assert changed[f"reranked/{way}/R@5"] >= 0
    assert any(changed[name] != untrained[name] for name in changed)
    assert measure(1)["reranked/text_to_video/R@1"] == untrained["text_to_video/R@1"]
    plain = Trainer(tiny_recipe(), *splits, tmp_path / "plain", cpu=True)
    with pytest.raises(TrainingError, match="reranking needs a model with reconstruction_layers of at least 1"):
        evaluate_retrieval(plain.model, validation.records, validation.cache, plain.tokenizer, rerank=3)


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
