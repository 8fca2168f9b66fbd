"""The command that trains an estimator on the exact interaction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hbi_training.banzhaf.estimator import load_estimator
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, shapes_splits, tiny_recipe


def test_the_command_learns_the_exact_interaction(tmp_path: Path) -> None:
    data = tmp_path / "data"
    splits = shapes_splits(data)
    for section in (HBI_SECTION, MEAN_POOLED_SECTION):
        recipe = tiny_recipe(
            model=section,
            optimiser={"steps": 40, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3},
            report={"evaluate_steps": 40},
        )
        Trainer(recipe, *splits, tmp_path / section["kind"], cpu=True).run()
    out = tmp_path / "estimator.safetensors"
    model = tmp_path / "hbi" / "model"
    command = [str(Path(sys.executable).parent / "hbi-train"), "estimator", str(model), "--data", str(data)]
    explained = []
    for steps in ("1", "100"):
        options = ["-o", str(out), "--steps", steps, "--channels", "16"]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        explained.append(json.loads(done.stdout))
    assert set(explained[0]) == {f"val/{level}/explained_variance" for level in ("entity", "action", "event")}
    assert all(explained[0][name] < explained[1][name] <= 1 for name in explained[0])
    assert load_estimator(out).channels == 16
    command[2] = str(tmp_path / "mean_pooled_clip" / "model")
    done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs a model of kind hbi" in done.stderr
