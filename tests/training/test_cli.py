"""The command line: make data, train, stop, go on, measure; wrong arguments are one line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from hbi_training.run.recipe import recipe_to_mapping
from hbi_training.weights.checkpoint import load_checkpoint
from tests.builders.tiny_training import (
    HBI_SECTION,
    hbi_train,
    run_here,
    tiny_recipe,
)


def write_recipe(path: Path, folder: Path, steps: int) -> Path:
    recipe = recipe_to_mapping(tiny_recipe())
    recipe["data"]["folder"] = str(folder)
    recipe["optimiser"]["steps"] = steps
    recipe["model"] = HBI_SECTION
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_the_commands_make_data_train_stop_go_on_and_measure(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    made = run_here("data", "shapes", "--out", data, "--num", 40, "--workers", 1)
    assert made.returncode == 0, made.stderr
    recipe = write_recipe(tmp_path / "recipe.yaml", data, steps=400)
    train = ["retrieval", "--recipe", recipe, "--out", run, "--workers", 1, "--cpu"]
    process = subprocess.Popen(hbi_train(*train), stderr=subprocess.PIPE, text=True)
    while not list((run / "checkpoints").glob("step_*")) and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "the same command resumes from there" in stderr
    assert process.returncode == 130, stderr
    stopped = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))

    shorter = run_here(*train, "--set", "optimiser.steps=401")
    assert shorter.returncode == 1
    assert "holds a run of another recipe" in shorter.stderr
    write_recipe(recipe, data, steps=stopped + 2)
    finished = run_here(*train, "--restart")
    assert finished.returncode == 0, finished.stderr
    measured = run_here("evaluate", run / "model", "--data", data, "--save", "--workers", 1)
    assert measured.returncode == 0, measured.stderr
    figures = json.loads(measured.stdout)
    assert figures["test/clips"] == 4
    assert 0 <= figures["test/text_to_video/R@1"] <= 100
    assert load_checkpoint(run / "model").provenance["metrics"]["test/clips"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieval", "--recipe", "/nowhere.yaml"], "cannot read the recipe /nowhere.yaml"),
        (["retrieval", "--recipe", "/nowhere.yaml", "--set", "steps"], "--set takes KEY=VALUE"),
        (["evaluate", "/nowhere", "--data", "/nowhere"], "/nowhere has no config.json"),
        (["data", "shapes", "--out", "x", "--num", "20", "--num-val", "20"], "leaves no training clips"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = run_here(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
