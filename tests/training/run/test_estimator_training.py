"""The command that trains an estimator on the exact interaction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf.estimator import load_estimator
from hbi_training.data.frame_cache import Split
from hbi_training.run.commands import run_estimator
from hbi_training.run.estimator_training import EstimatorOptions
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, run_here, tiny_recipe


def test_the_command_learns_the_exact_interaction(
    splits: tuple[Split, Split], data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for section, steps in ((HBI_SECTION, 40), (MEAN_POOLED_SECTION, 1)):
        recipe = tiny_recipe(
            model=section,
            optimiser={"steps": steps, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3},
            report={"evaluate_steps": 40},
        )
        Trainer(recipe, *splits, tmp_path / section["kind"], cpu=True).run()
    out, model = tmp_path / "estimator.safetensors", tmp_path / "hbi" / "model"
    untrained = EstimatorOptions(steps=1, channels=16)
    capsys.readouterr()
    run_estimator(model, data_folder, "manifest", out, untrained, workers=1)
    before = json.loads(capsys.readouterr().out)
    options = ["--data", data_folder, "-o", out, "--steps", 100, "--channels", 16]
    done = run_here("estimator", model, *options)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    assert set(before) == {f"val/{level}/explained_variance" for level in ("entity", "action", "event")}
    assert all(before[name] < after[name] <= 1 for name in before)
    assert load_estimator(out).channels == 16
    with pytest.raises(TrainingError, match="needs a model of kind hbi"):
        run_estimator(tmp_path / "mean_pooled_clip" / "model", data_folder, "manifest", out, untrained, workers=1)
