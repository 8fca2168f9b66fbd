"""Training: steps, measurements, and checkpoints from which a run goes on exactly as it would have."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import hbi_infer
from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.batches import TrainingBatches
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import VideoRecord
from hbi_training.evaluation.evaluate import encode_clips, evaluate
from hbi_training.model.hbi import VIDEO_ENCODER
from hbi_training.objective.self_critical import CaptionCritic
from hbi_training.objective.training_step import MAX_LOGIT_SCALE, TrainingStep
from hbi_training.run.muon import Muon
from hbi_training.run.recipe import OptimiserOptions, Recipe, recipe_from_mapping, recipe_to_mapping
from hbi_training.weights.checkpoint import Checkpoint, Model, build_model, load_checkpoint, save_checkpoint, start_from
from hbi_training.weights.rounding import computes_in_bfloat16

CHECKPOINTS_KEPT = 2

HEADLINES = {
    "text_to_video/R@1": "R@1 text to video",
    "video_to_text/R@1": "R@1 video to text",
    "answer/accuracy": "answers right",
    "caption/CIDEr": "CIDEr",
}
"""The metrics that are said each time; all of them are written."""


VALIDATION = "validation/"
"""In front of the names of metrics on the validation split."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: half a step cannot be resumed from."""
    came: list[int] = []
    # Another thread gets no signals, and where they are ignored, they stay so.
    ours = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def learning_rate_factor(step: int, options: OptimiserOptions) -> float:
    """Linear warm-up, perhaps a plateau, then a cosine to 0; the first step is not wasted on a rate of 0."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    decay_steps = options.decay_steps or options.steps - options.warmup_steps
    progress = 1.0 - (options.steps - step) / max(decay_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def build_optimisers(
    step: TrainingStep, options: OptimiserOptions, *, muon_dtype: torch.dtype | None = None
) -> list[torch.optim.Optimizer]:
    """CLIP's encoders at their own rate, and no decay of norms, biases and the temperature.

    Args:
        step: The model with its loss.
        options: Rates, decay and which optimiser matrices get.
        muon_dtype: What Muon orthogonalises in; None for the weights' own precision.

    Returns:
        AdamW, and behind it Muon if the options ask for it.
    """
    tables = {id(module.weight) for module in step.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in step.named_parameters():
        if not parameter.requires_grad:
            continue
        of_clip = name.startswith(("model.frame_encoder.", "model.word_encoder."))
        rate = options.clip_learning_rate if of_clip else options.learning_rate
        if options.position_learning_rate is not None and ".position" in name:
            rate = options.position_learning_rate
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        by_muon = options.matrices == "muon" and parameter.ndim == 2 and id(parameter) not in tables
        groups.setdefault((by_muon, rate, decay), []).append(parameter)

    def of(muon: bool) -> list[dict[str, Any]]:
        return [
            {"params": group, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (by_muon, rate, decay), group in groups.items()
            if by_muon == muon
        ]

    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(of(muon=False), betas=(0.9, 0.98))]
    if options.matrices == "muon":
        optimisers.append(Muon(of(muon=True), dtype=muon_dtype))
    return optimisers


def common_answers(records: Sequence[VideoRecord], most: int) -> tuple[str, ...]:
    """The answers of the records' questions, the most frequent first, equal ones in the order of the alphabet."""
    counts = Counter(question.answer for record in records for question in record.questions)
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:most])


class Trainer:
    """One training run, in one folder.

    `run_folder` receives `checkpoints/` (to resume from), `metrics.jsonl`, TensorBoard's event files and, each time it
    is measured, `model/`: the checkpoint that `hbi-export` takes.

    Args:
        recipe: What to train.
        train: Clips to learn from, with their frames.
        validation: Clips to measure on, with theirs.
        run_folder: Where the run lives.
        say: Called with a line of text now and then.
        cpu: True stays on the CPU although there is a GPU.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Split,
        validation: Split,
        run_folder: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        cpu: bool = False,
    ) -> None:
        self.recipe, self.validation, self.run_folder = recipe, validation, run_folder
        options = recipe.optimiser
        precision = options.mixed_precision
        if precision == "auto":
            precision = "bf16" if computes_in_bfloat16(cpu=cpu) else "no"
        # A recipe may leave parts of its model untrained, a reconstruction that no task reads for one.
        several = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[several])
        self.say = say if self.accelerator.is_main_process else lambda _: None
        if options.mixed_precision == "auto":
            self.say(f"mixed precision: {precision}")
        answering = recipe.objective.answering > 0
        if recipe.objective.writes_captions and not all(record.captions for record in train.records):
            term = "captioning" if recipe.objective.captioning else "self_critical"
            raise TrainingError(f"the objective's {term} needs captions, and some clips of the data set have none")
        corpus = [caption for record in train.records for caption in record.captions + record.hard_negatives]
        corpus += [question.question for record in train.records for question in record.questions if answering]
        self.tokenizer_json = clip_tokenizer_json(corpus if recipe.data.vocabulary == "corpus" else None)
        self.tokenizer = Tokenizer.from_json(self.tokenizer_json)
        torch.manual_seed(recipe.seed)
        answers = common_answers(train.records, recipe.data.max_answers) if answering else ()
        model = build_model({**recipe.model, **({"answers": answers} if answers else {})}, self.tokenizer)
        self.recipe_mapping = recipe_to_mapping(recipe)
        if recipe.initial:
            initial = load_checkpoint(Path(recipe.initial))
            self.say(start_from(initial, model, self.tokenizer))
            self.recipe_mapping["initial"] = initial.provenance.get("recipe", recipe.initial)  # the whole story
        train.cache.preload()
        decoded = [train.records[row] for row in train.cache.decoded]
        self.batches = TrainingBatches(
            decoded,
            train.cache,
            self.tokenizer,
            rows=train.cache.decoded,
            batch_size=options.batch_size,
            max_words=model.config.max_words,
            seed=recipe.seed,
            num_negatives=recipe.objective.hard_negatives,
            shift_pixels=recipe.data.shift_pixels,
            answers=answers,
            num_questions=recipe.objective.questions,
            rank=self.accelerator.process_index,
            num_ranks=self.accelerator.num_processes,
        )
        known_tokens = None
        parts: dict[str, Any] = {**dict(model.named_children()), **dict(model.named_parameters(recurse=False))}
        for part in options.frozen:
            if part not in parts:
                raise TrainingError(
                    f"the optimiser's frozen names {part}, which the model does not have; it has {', '.join(parts)}"
                )
            parts[part].requires_grad_(False)
        if set(VIDEO_ENCODER) <= set(options.frozen) and not recipe.data.shift_pixels:
            self.say(f"computing the tokens of {len(decoded)} clips, which stay as they are")
            known_tokens = encode_clips(model.to(self.accelerator.device), train.cache)
        critic = None
        if recipe.objective.self_critical:
            references = [record.captions for record in decoded]
            critic = CaptionCritic(references, self.tokenizer, num_samples=recipe.objective.self_critical_samples)
        step = TrainingStep(model, recipe.objective, known_tokens, critic)
        muon_dtype = torch.bfloat16 if precision == "bf16" else None
        optimisers = build_optimisers(step, options, muon_dtype=muon_dtype)
        self.step_module, *self.optimisers = self.accelerator.prepare(step, *optimisers)
        self.model: Model = self.accelerator.unwrap_model(self.step_module).model
        self.step = 0
        self.seconds = 0.0

    def resume(self) -> None:
        """Goes back to the newest checkpoint of the run, if there is one."""
        newest = max(self._checkpoints(), default=None)
        if newest is None:
            return
        progress = json.loads((newest / "progress.json").read_text())
        # Read back, so that an option which the code has learnt since then has its default.
        if recipe_from_mapping(progress["recipe"], str(newest)) != self.recipe:
            raise TrainingError(
                f"{self.run_folder} was begun with another recipe; give another --out, or --restart to begin anew"
            )
        self.accelerator.load_state(str(newest))
        self.step, self.seconds = progress["step"], progress["seconds"]
        self._forget_later_measurements()
        self.say(f"resumed at step {self.step}")

    def _forget_later_measurements(self) -> None:
        """A run that was killed has measured beyond its newest checkpoint; it will do so again."""
        if self.accelerator.is_main_process:
            lines = [line for line in self._measurements() if line["step"] <= self.step]
            (self.run_folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def _measurements(self) -> Iterator[dict[str, float]]:
        """The lines of metrics.jsonl, without one that was being written when the run was killed."""
        path = self.run_folder / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            with suppress(json.JSONDecodeError):
                yield json.loads(line)

    def _known_metrics(self) -> dict[str, float]:
        """What was measured on the validation split at this step; empty if that was not done, or not finished."""
        lines = [line for line in self._measurements() if line["step"] == self.step]
        known = {name: value for line in lines for name, value in line.items() if name.startswith(VALIDATION)}
        return {name.removeprefix(VALIDATION): value for name, value in known.items()}

    def run(self, advance: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """Trains to the last step; on Ctrl-C the step that is being computed is finished and a checkpoint saved.

        Args:
            advance: Called with the number of steps that have just been done.

        Returns:
            The metrics on the validation split at the end.
        """
        report, last = self.recipe.report, self.recipe.optimiser.steps
        advance(self.step)
        metrics = self._known_metrics()
        writer = (
            SummaryWriter(str(self.run_folder), purge_step=self.step + 1) if self.accelerator.is_main_process else None
        )
        try:
            if self._is_measured(self.step) and not metrics:  # the run was stopped while it measured
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
            self.say(f"stopped at step {self.step}; the same command goes on from there")
            raise
        finally:
            if writer is not None:
                writer.close()
        return metrics

    def _is_measured(self, step: int) -> bool:
        """Whether the validation split is measured behind a step."""
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
        if writer is None:  # one device measures, the others wait at the next gather
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
        """Writes a checkpoint under its final name only when it is whole, and drops the oldest."""
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
