"""Training: steps, measurements, and checkpoints from which a run resumes exactly."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import hbi_infer
from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation.evaluate import evaluate
from hbi_training.objective.training_step import MAX_LOGIT_SCALE
from hbi_training.run.builders import (
    build_accelerator,
    build_batches,
    build_first_model,
    build_step,
    build_vocabulary,
    chosen_precision,
    closed_list,
    require_captions,
    uses_processor,
)
from hbi_training.run.interrupts import interrupts_held
from hbi_training.run.optimisers import build_optimisers, learning_rate_factor
from hbi_training.run.recipe import Recipe, recipe_from_mapping, recipe_to_mapping
from hbi_training.weights.checkpoint import Checkpoint, Model, save_checkpoint

CHECKPOINTS_KEPT = 2

HEADLINES = {
    "text_to_video/R@1": "R@1 text to video",
    "video_to_text/R@1": "R@1 video to text",
    "answer/accuracy": "answers right",
    "caption/CIDEr": "CIDEr",
}
"""Metrics that each line of progress shows, and their names there; the files hold all of them."""

VALIDATION = "validation/"
"""Prefix of the names of metrics on the validation split."""


class Trainer:
    """One training run, in one folder.

    `run_folder` receives `checkpoints/` (to resume from), `metrics.jsonl`, TensorBoard's event files and, at each
    measurement, `model/`: the checkpoint that `hbi-export` takes.

    Args:
        recipe: Recipe to train.
        train: Clips to learn from, with their frames.
        validation: Clips to measure on, with their frames.
        run_folder: Folder of the run.
        say: Callback for lines of progress.
        cpu: True uses the CPU even if there is a GPU.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Split,
        validation: Split,
        run_folder: Path | str,
        *,
        say: Callable[[str], None] = lambda _: None,
        cpu: bool = False,
    ) -> None:
        run_folder = Path(run_folder)
        self.recipe, self.validation, self.run_folder = recipe, validation, run_folder
        cpu = uses_processor(cpu=cpu)
        precision = chosen_precision(recipe.optimiser, cpu=cpu)
        self.accelerator = build_accelerator(precision, cpu=cpu)
        self.say = say if self.accelerator.is_main_process else lambda _: None
        if recipe.optimiser.mixed_precision == "auto":
            self.say(f"mixed precision: {precision}")
        require_captions(recipe.objective, train.records)
        self.tokenizer_json = build_vocabulary(recipe, train.records)
        self.tokenizer = Tokenizer.from_json(self.tokenizer_json)
        answers = closed_list(recipe, train.records)
        model, self.recipe_mapping = build_first_model(recipe, self.tokenizer, answers, self.say)
        self.batches = build_batches(recipe, train, self.tokenizer, model, answers, self.accelerator)
        step = build_step(recipe, model, self.batches, self.accelerator.device, self.say)
        muon_dtype = torch.bfloat16 if precision == "bf16" else None
        optimisers = build_optimisers(step, recipe.optimiser, muon_dtype=muon_dtype)
        self.step_module, *self.optimisers = self.accelerator.prepare(step, *optimisers)
        self.model: Model = self.accelerator.unwrap_model(self.step_module).model
        self.step = 0
        self.seconds = 0.0

    def resume(self) -> None:
        """Restores the newest checkpoint of the run, if there is one."""
        newest = max(self._checkpoints(), default=None)
        if newest is None:
            return
        progress = json.loads((newest / "progress.json").read_text())
        # Reading the recipe back gives options that are newer than the checkpoint their defaults.
        if recipe_from_mapping(progress["recipe"], str(newest)) != self.recipe:
            raise TrainingError(
                f"{self.run_folder} holds a run of another recipe; give another --out, or --restart to begin anew"
            )
        self.accelerator.load_state(str(newest))
        self.step, self.seconds = progress["step"], progress["seconds"]
        self._forget_later_measurements()
        self.say(f"resumed at step {self.step}")

    def _forget_later_measurements(self) -> None:
        """Removes measurements that a killed run made after its newest checkpoint, for it will repeat them."""
        if self.accelerator.is_main_process:
            lines = [line for line in self._measurements() if line["step"] <= self.step]
            (self.run_folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _measurements(self) -> Iterator[dict[str, float]]:
        """Yields the lines of metrics.jsonl, except one that was cut off when the run was killed."""
        path = self.run_folder / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            with suppress(json.JSONDecodeError):
                yield json.loads(line)

    def _known_metrics(self) -> dict[str, float]:
        """Returns the metrics on the validation split at this step; empty if they were not measured in full."""
        lines = [line for line in self._measurements() if line["step"] == self.step]
        known = {name: value for line in lines for name, value in line.items() if name.startswith(VALIDATION)}
        return {name.removeprefix(VALIDATION): value for name, value in known.items()}

    def run(self, advance: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """Trains to the last step; Ctrl-C finishes the current step and saves a checkpoint.

        Args:
            advance: Callback for the number of steps just done.

        Returns:
            Metrics on the validation split at the end.
        """
        report, last = self.recipe.report, self.recipe.optimiser.steps
        advance(self.step)
        metrics = self._known_metrics()
        writer = (
            SummaryWriter(str(self.run_folder), purge_step=self.step + 1) if self.accelerator.is_main_process else None
        )
        try:
            if self._is_measured(self.step) and not metrics:  # the run stopped while it measured
                metrics = self._evaluate(writer)
            while self.step < last:
                with interrupts_held():
                    losses = self._train_step()
                    if self.step % report.log_steps == 0:
                        self._write(writer, {f"loss/{name}": value.item() for name, value in losses.items()})
                    if self.step % report.checkpoint_steps == 0:
                        self.save()
                if self._is_measured(self.step):
                    metrics = self._evaluate(writer)
                advance(1)
        except KeyboardInterrupt:
            with interrupts_held():
                self.save()
            self.say(f"stopped at step {self.step}; the same command resumes from there")
            raise
        finally:
            if writer is not None:
                writer.close()
        return metrics

    def _is_measured(self, step: int) -> bool:
        """Returns whether the validation split is measured after a step."""
        return step > 0 and (step % self.recipe.report.evaluate_steps == 0 or step == self.recipe.optimiser.steps)

    def _train_step(self) -> dict[str, Tensor]:
        begin = time.perf_counter()
        factor = learning_rate_factor(self.step, self.recipe.optimiser)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = factor * group["initial_lr"]
        self.step_module.train()
        loss, terms = self.step_module(self.batches[self.step].to(self.accelerator.device))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.step_module.parameters(), self.recipe.optimiser.max_gradient_norm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss is {loss.item()} at step {self.step}; lower the learning rates")
        self.step += 1
        self.seconds += time.perf_counter() - begin
        return {"total": loss.detach(), **terms}

    def _evaluate(self, writer: SummaryWriter | None) -> dict[str, float]:
        if writer is None:  # the main process measures, the others wait at the next gather
            return {}
        clips = self.validation
        metrics = evaluate(self.model, clips.records, clips.cache, self.tokenizer, calibrate=True).metrics
        self._write(writer, {f"{VALIDATION}{name}": value for name, value in metrics.items()})
        told = ", ".join(f"{said} {metrics[name]:.1f}" for name, said in HEADLINES.items() if name in metrics)
        self.say(f"step {self.step}: {told} ({self.seconds:.0f} s)")
        provenance = {
            "recipe": self.recipe_mapping,
            "seed": self.recipe.seed,
            "code_version": hbi_infer.__version__,
            "steps": self.step,
            "training_seconds": round(self.seconds),
            "metrics": {f"{VALIDATION}{name}": round(value, 3) for name, value in metrics.items()},
        }
        checkpoint = Checkpoint(self.model, self.tokenizer_json, self.recipe.name, self.recipe.notice, provenance)
        save_checkpoint(checkpoint, self.run_folder / "model")
        return metrics

    def save(self) -> None:
        """Writes a checkpoint, under its final name only once it is complete, and deletes the oldest."""
        folder = self.run_folder / "checkpoints" / f"step_{self.step:08d}"
        partial = folder.with_suffix(".partial")
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            progress = {"step": self.step, "seconds": self.seconds, "recipe": recipe_to_mapping(self.recipe)}
            (partial / "progress.json").write_text(json.dumps(progress))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
            for old in sorted(self._checkpoints())[:-CHECKPOINTS_KEPT]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _checkpoints(self) -> Iterator[Path]:
        return (path for path in (self.run_folder / "checkpoints").glob("step_*") if not path.suffix)

    def _write(self, writer: SummaryWriter | None, values: dict[str, float]) -> None:
        if writer is None:
            return
        for name, value in values.items():
            writer.add_scalar(name, value, self.step)
        figures = {name: float(f"{value:.6g}") for name, value in values.items()}
        line = {"step": self.step, "seconds": round(self.seconds, 1), **figures}
        with (self.run_folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
