"""The commands train for questions and captions, in stages, and measure what came out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from hbi_training.data.shapes import write_shapes
from hbi_training.weights.checkpoint import load_checkpoint
from tests.builders.tiny_training import ALL_TASKS, hbi_train


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(hbi_train(*arguments), capture_output=True, text=True)


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
    refused = run("caption", *options)
    assert refused.returncode == 1
    assert "the recipe tiny does not train for caption: its objective.captioning is 0" in refused.stderr
    assert "--set objective.captioning=1" in refused.stderr
    trained = run("qa", *options)
    assert trained.returncode == 0, trained.stderr
    assert "answers right" in trained.stderr
    further = ["--set", f"initial={tmp_path / 'run' / 'model'}", "--set", "objective.captioning=1"]
    options[3] = tmp_path / "further"
    trained = run("caption", *options, *further)
    assert trained.returncode == 0, trained.stderr
    assert "start from tiny" in trained.stderr
    stages = load_checkpoint(tmp_path / "further" / "model").provenance["recipe"]
    assert stages["initial"] == load_checkpoint(tmp_path / "run" / "model").provenance["recipe"]

    model, failures = tmp_path / "further" / "model", tmp_path / "failures.jsonl"
    measured = run("evaluate", model, "--data", tmp_path / "data", "--failures", failures, "--save")
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
