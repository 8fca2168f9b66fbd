"""The commands train for questions and captions, in stages, and measure what came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbi_infer.errors import TrainingError
from hbi_training.data.shapes import write_shapes
from hbi_training.run.commands import run_training
from hbi_training.run.recipe import load_recipe
from hbi_training.weights.checkpoint import load_checkpoint
from tests.builders.tiny_training import ALL_TASKS, run_here


def test_the_commands_train_for_questions_and_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    message = "the recipe tiny does not train for caption: its objective.captioning is 0.* --set objective.captioning=1"
    with pytest.raises(TrainingError, match=message):
        run_training(load_recipe(recipe), tmp_path / "run", task="caption", restart=False, workers=1, cpu=True)
    run_training(load_recipe(recipe), tmp_path / "run", task="qa", restart=False, workers=1, cpu=True)
    assert "answers right" in capsys.readouterr().err
    options = ["--recipe", recipe, "--out", tmp_path / "further", "--workers", 1, "--cpu"]
    further = ["--set", f"initial={tmp_path / 'run' / 'model'}", "--set", "objective.captioning=1"]
    trained = run_here("caption", *options, *further)
    assert trained.returncode == 0, trained.stderr
    assert "start from tiny" in trained.stderr
    stages = load_checkpoint(tmp_path / "further" / "model").provenance["recipe"]
    assert stages["initial"] == load_checkpoint(tmp_path / "run" / "model").provenance["recipe"]

    model, failures = tmp_path / "further" / "model", tmp_path / "failures.jsonl"
    measured = run_here("evaluate", model, "--data", tmp_path / "data", "--failures", failures, "--save")
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
