"""Accuracy by type, the fitted temperature and the calibration error, by hand and on a small model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbi_training.data.frame_cache import Split
from hbi_training.data.records import Question
from hbi_training.evaluation.answers import Answers, answer_questions, calibration_error, fit_temperature
from hbi_training.model.hbi import HBI
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import WITH_RECONSTRUCTION, tiny_recipe


def test_accuracy_by_type() -> None:
    logits = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0], [3.0, 0, 0]])
    questions = tuple(Question("?", "", kind) for kind in ("colour", "count", "colour", "count"))
    answers = Answers(logits, torch.tensor([0, 1, 0, -1]), questions, (0, 0, 1, 1))
    assert answers.accuracy() == {
        "answer/accuracy": 50.0,
        "answer/top5": 75.0,
        "answer/accuracy/colour": 50.0,
        "answer/accuracy/count": 50.0,
        "answer/questions": 4.0,
    }


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
def test_the_temperature_undoes_sharpness(sharpness: float) -> None:
    torch.manual_seed(0)
    honest = 2 * torch.randn(20000, 5)
    labels = torch.distributions.Categorical(logits=honest).sample()
    answers = Answers(sharpness * honest, labels, (Question("?", "", ""),) * len(labels), (0,) * len(labels))
    temperature = fit_temperature(answers)
    assert temperature == pytest.approx(sharpness, rel=0.05)
    assert calibration_error(answers, temperature) < 1.0
    if sharpness != 1.0:
        assert calibration_error(answers, 1.0) > 5.0


def test_every_question_of_a_split_is_asked(splits: tuple[Split, Split], tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, validation = splits
    recipe = tiny_recipe(model=WITH_RECONSTRUCTION, objective={"answering": 1.0})
    trainer = Trainer(recipe, train, validation, tmp_path / "run", cpu=True)
    assert isinstance(trainer.model, HBI)
    answers = answer_questions(trainer.model, validation.records, validation.cache, trainer.tokenizer)
    asked = [question for record in validation.records for question in record.questions]
    assert list(answers.questions) == asked
    assert [question for row in dict.fromkeys(answers.rows) for question in validation.records[row].questions] == asked
    assert answers.accuracy()["answer/questions"] == len(asked)
    known = trainer.model.config.answers
    for label, question in zip(answers.labels.tolist(), asked, strict=True):
        assert known[label] == question.answer if label >= 0 else question.answer not in known
