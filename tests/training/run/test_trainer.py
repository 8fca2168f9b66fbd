"""Training runs: exact resume, Ctrl-C, several devices, precision, what is learnt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf.estimator import BanzhafEstimator, save_estimator
from hbi_training.data.frame_cache import Split
from hbi_training.run.recipe import recipe_from_mapping, recipe_to_mapping
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import load_checkpoint
from tests.builders.tiny_training import (
    ALL_TASKS,
    MEAN_POOLED_SECTION,
    WITH_RECONSTRUCTION,
    same_weights,
    tiny_recipe,
    without_captions,
)


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(
    splits: tuple[Split, Split], tmp_path: Path, matrices: str
) -> None:
    options = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "matrices": matrices}
    recipe = tiny_recipe(optimiser=options)
    whole = Trainer(recipe, *splits, tmp_path / "whole", cpu=True)
    whole.run()

    class StopHere(KeyboardInterrupt):
        pass

    def stop_after(steps: int) -> Any:
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            if done == steps:
                raise StopHere

        return advance

    cut = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    with pytest.raises(KeyboardInterrupt):
        cut.run(stop_after(4))
    said: list[str] = []
    resumed = Trainer(recipe, *splits, tmp_path / "cut", cpu=True, say=said.append)
    resumed.resume()
    assert said == ["resumed at step 4"]
    resumed.run()
    assert same_weights(whole.model, resumed.model)
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 2
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["validation/text_to_video/R@10"] > 0
    assert list((tmp_path / "cut").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("part", ["accelerator.backward", "optimisers.0.step"])
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(
    splits: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    options = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "matrices": "muon"}
    # The answer head draws dropout: a step that is done again would draw anew.
    recipe = tiny_recipe(optimiser=options, objective={"answering": 1.0, "hard_negatives": 1})
    whole = Trainer(recipe, *splits, tmp_path / "whole", cpu=True)
    whole.run()

    cut = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    *path, name = part.split(".")
    owner: Any = cut.accelerator if path == ["accelerator"] else cut.optimisers[0]
    compute = getattr(owner, name)

    def interrupted(*arguments: Any) -> Any:
        if cut.step == 2:
            # Not a signal of the system's: a library that other tests loaded may have taken its stack away.
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, None)
        return compute(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    assert cut.step == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Trainer(recipe, *splits, tmp_path / "cut", cpu=True)
    resumed.resume()
    resumed.run()
    assert same_weights(whole.model, resumed.model)


def test_a_run_that_was_stopped_while_it_measured_measures_again(splits: tuple[Split, Split], tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("step 6:"):  # measured, and about to write its model
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(tiny_recipe(), *splits, tmp_path, cpu=True, say=stop).run()
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert "validation/text_to_video/R@1" in json.loads(lines[-1])
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # as kill -9 leaves it
    assert not (tmp_path / "model").exists()

    resumed = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    resumed.resume()
    metrics = resumed.run()
    assert load_checkpoint(tmp_path / "model").provenance["steps"] == 6
    again = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    known = again.run()
    assert known.keys() == metrics.keys()
    assert known["text_to_video/R@1"] == pytest.approx(metrics["text_to_video/R@1"])


def test_training_learns_and_its_checkpoint_computes_the_same(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(
        optimiser={"steps": 60, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3},
        report={"evaluate_steps": 60, "checkpoint_steps": 60, "log_steps": 1},
    )
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/total"] for line in lines if "loss/total" in line]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    checkpoint = load_checkpoint(tmp_path / "model")
    assert same_weights(checkpoint.model, trainer.model)
    assert checkpoint.provenance["steps"] == 60
    assert recipe_from_mapping(checkpoint.provenance["recipe"], "its recipe") == recipe


def test_another_recipe_does_not_resume_a_run(splits: tuple[Split, Split], tmp_path: Path) -> None:
    Trainer(tiny_recipe(), *splits, tmp_path, cpu=True).save()
    other = Trainer(tiny_recipe(seed=1), *splits, tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="holds a run of another recipe"):
        other.resume()


def test_the_baseline_trains_by_the_same_recipe(splits: tuple[Split, Split], tmp_path: Path) -> None:
    metrics = Trainer(tiny_recipe(model=MEAN_POOLED_SECTION), *splits, tmp_path, cpu=True).run()
    assert "video/text_to_video/R@1" in metrics


TRAIN_EACH = """
import sys
from hbi_training.cli import app
for recipe in sys.argv[1:]:
    app(["retrieval", "--recipe", recipe, "--out", recipe + ".run", "--workers", "1"], standalone_mode=False)
"""


def test_two_processes_without_a_gpu_train_as_one(
    splits: tuple[Split, Split], data_folder: Path, tmp_path: Path
) -> None:
    """Also where a part of the model is left untrained by the objective, and where a loss compares the whole batch."""
    torch.manual_seed(0)
    save_estimator(BanzhafEstimator(4), tmp_path / "estimator")
    released = {"variant": "released", "banzhaf": 1.0, "estimator": str(tmp_path / "estimator")}
    data = {"format": "manifest", "folder": str(data_folder), "vocabulary": "corpus", "shift_pixels": 2}
    recipes = {
        tmp_path / "reconstruction": tiny_recipe(model=WITH_RECONSTRUCTION, data=data),
        tmp_path / "released": tiny_recipe(objective=released, data=data),
    }
    for path, recipe in recipes.items():
        path.write_text(json.dumps(recipe_to_mapping(recipe)))  # YAML holds JSON
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, sys.executable, "-c", TRAIN_EACH, *map(str, recipes)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    together = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("R@1 text to video") == 2
    for path, recipe in recipes.items():
        one = Trainer(recipe, *splits, tmp_path / "one" / path.name, cpu=True)
        one.run()
        weights = load_checkpoint(tmp_path / f"{path.name}.run" / "model").model.state_dict()
        pairs = {name: (weights[name], tensor) for name, tensor in one.model.state_dict().items()}
        for name, (two, tensor) in pairs.items():
            # Adam divides by the gradient's own size: where that is rounding, its sign is too.
            torch.testing.assert_close(two, tensor, rtol=0, atol=2e-3, msg=name)
        close = [torch.allclose(two, tensor, rtol=0, atol=1e-4) for two, tensor in pairs.values()]
        assert np.mean(close) > 0.9


@pytest.mark.usefixtures("fresh_accelerate")
def test_training_in_bfloat16_learns_as_in_float32(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 8, "batch_size": 8, "learning_rate": 3e-3, "clip_learning_rate": 3e-3, "matrices": "muon"}
    objective = {"hard_negatives": 1, "banzhaf": 0.5, "answering": 1.0, "captioning": 1.0}
    losses = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)
        recipe = tiny_recipe(
            model=ALL_TASKS,
            objective=objective,
            optimiser={**options, "mixed_precision": precision},
            report={"evaluate_steps": 100, "checkpoint_steps": 100, "log_steps": 1},
        )
        trainer = Trainer(recipe, *splits, tmp_path / precision, cpu=True)
        trainer.run()
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
        losses[precision] = np.array([line["loss/total"] for line in map(json.loads, lines) if "loss/total" in line])
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]
    assert 0 < np.abs(losses["bf16"] / losses["no"] - 1).max() < 0.03


def test_a_model_learns_from_questions_alone(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, validation = map(without_captions, splits)
    recipe = tiny_recipe(model=WITH_RECONSTRUCTION, objective={"answering": 1.0})
    metrics = Trainer(recipe, train, validation, tmp_path, cpu=True).run()
    assert {name.split("/")[0] for name in metrics} == {"answer"}
    assert 0 <= metrics["answer/accuracy"] <= metrics["answer/top5"] <= 100
    with pytest.raises(TrainingError, match="captioning needs captions, and some clips of the data set have none"):
        Trainer(tiny_recipe(model=ALL_TASKS, objective={"captioning": 1.0}), train, validation, tmp_path, cpu=True)


def test_a_run_begun_before_an_option_was_known_is_resumed(splits: tuple[Split, Split], tmp_path: Path) -> None:
    Trainer(tiny_recipe(), *splits, tmp_path, cpu=True).save()
    progress = tmp_path / "checkpoints" / "step_00000000" / "progress.json"
    content = json.loads(progress.read_text())
    del content["recipe"]["objective"]["banzhaf"]
    progress.write_text(json.dumps(content))
    again = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    assert again.step == 0
