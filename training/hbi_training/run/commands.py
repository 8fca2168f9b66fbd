"""The work behind the commands of `hbi-train`: load data, show progress, run, write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from accelerate import PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling
from hbi_infer.render.stdout import printable, printable_lines
from hbi_training.banzhaf.estimator import save_estimator
from hbi_training.data.formats import load_records
from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.data.shapes import captions_right
from hbi_training.data.shapes.scene import Split as ShapesSplit
from hbi_training.evaluation.evaluate import Evaluation, evaluate
from hbi_training.model.config import from_mapping
from hbi_training.run.builders import uses_processor
from hbi_training.run.estimator_training import EstimatorOptions, train_estimator
from hbi_training.run.recipe import Recipe
from hbi_training.run.run_folder import held
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import Checkpoint, Model, load_checkpoint, save_checkpoint
from hbi_training.weights.rounding import Weights, rounded

console = Console(stderr=True)

TrainingTask = Literal["retrieval", "qa", "caption"]
TASK_TERMS: dict[TrainingTask, tuple[str, ...]] = {
    "retrieval": (),
    "qa": ("answering",),
    "caption": ("captioning", "self_critical"),
}
"""Terms of which a recipe's objective must have at least one for a task; every recipe trains for retrieval."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Shows a bar with the count and the time left on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        yield progress


def load_split(
    folder: Path | str,
    data_format: str,
    split: str,
    sampling: FrameSampling,
    workers: int | None = None,
    num: int | None = None,
) -> Split:
    """Reads the records of a split, or the first `num`, and decodes frames that `folder/frames` does not hold yet."""
    folder = Path(folder)
    records = load_records(data_format, folder, split)[:num]
    cache = FrameCache(folder / "frames", records, sampling)
    with progress_bar() as progress:
        bar = progress.add_task(f"decoding {split}", total=len(records))
        failures = cache.fill(workers=workers, advance=lambda n: progress.advance(bar, n))
    for path, reason in failures.items():
        console.print(printable(f"left out: {path}: {reason}"), markup=False, highlight=False)
    if failures:
        console.print(printable(f"to try these again, delete {cache.folder}"), markup=False, highlight=False)
    return Split(records, cache)


def load_recipe_split(recipe: Recipe, split: str, workers: int | None = None) -> Split:
    """Loads a split of a recipe's data, sampled as its model needs it."""
    sampling = from_mapping(FrameSampling, recipe.model.get("sampling", {}), "sampling")
    return load_split(Path(recipe.data.folder), recipe.data.format, split, sampling, workers)


def train_recipe(
    recipe: Recipe, out: Path | str | None, train: Split, validation: Split, *, restart: bool = False, cpu: bool = False
) -> Path:
    """Trains a recipe in `out`, from its newest checkpoint unless `restart`, and returns the model's folder."""
    out = None if out is None else Path(out)
    with _run_folder(recipe, out, restart=restart, cpu=cpu) as run_folder:
        return _train(recipe, run_folder, train, validation, cpu=cpu)


@contextmanager
def _run_folder(recipe: Recipe, out: Path | None, *, restart: bool, cpu: bool) -> Iterator[Path]:
    """Joins the processes of the run, if there are several, and holds its folder."""
    run_folder = out or Path("runs") / recipe.name
    with held(run_folder, PartialState(cpu=uses_processor(cpu=cpu)), restart=restart):
        yield run_folder


def _train(recipe: Recipe, run_folder: Path, train: Split, validation: Split, *, cpu: bool) -> Path:
    """Trains in a folder that is held, and returns the model's folder."""

    def say(line: str) -> None:
        console.print(printable_lines(line), markup=False, highlight=False)

    trainer = Trainer(recipe, train, validation, run_folder, say=say, cpu=cpu)
    trainer.resume()
    with progress_bar() as progress:
        bar = progress.add_task(f"training {recipe.name}", total=recipe.optimiser.steps)
        trainer.run(advance=lambda n: progress.advance(bar, n))
    trainer.say(
        f"the model is {run_folder / 'model'}; export it with: hbi-export onnx {run_folder / 'model'} -o BUNDLE"
    )
    return run_folder / "model"


def run_training(
    recipe: Recipe, out: Path | str | None, *, task: TrainingTask, restart: bool, workers: int | None, cpu: bool
) -> None:
    """Trains a recipe for a task and for the other terms of its objective.

    Raises:
        TrainingError: The objective has no term of the task.
    """
    out = None if out is None else Path(out)
    terms = TASK_TERMS[task]
    if terms and not recipe.objective.needed_tasks.keys() & terms:
        raise TrainingError(
            f"the recipe {recipe.name} does not train for {task}: its objective.{terms[0]} is 0; use another recipe "
            f"or --set objective.{terms[0]}=1"
        )
    with _run_folder(recipe, out, restart=restart, cpu=cpu) as run_folder:
        train, validation = (load_recipe_split(recipe, split, workers) for split in ("train", "val"))
        _train(recipe, run_folder, train, validation, cpu=cpu)


def measure(
    checkpoint: Checkpoint, clips: Split, data: Path | str, split: str, *, all_captions: bool = False, rerank: int = 0
) -> tuple[dict[str, float], Evaluation]:
    """Measures a split; results have names such as "test/text_to_video/R@1".

    For `shapes`, results include the rate at which captions are right.
    """
    data = Path(data)
    found = evaluate(
        checkpoint.model, clips.records, clips.cache, checkpoint.tokenizer, all_captions=all_captions, rerank=rerank
    )
    metrics = dict(found.metrics)
    if found.captions is not None and (data / "shapes.json").exists():
        said = {clips.records[row].video.name: caption for row, caption in found.captions.items()}
        right = captions_right(data, cast("ShapesSplit", split), said)
        metrics |= {f"caption/right/{name}": value for name, value in right.items()}
    figures = {f"{split}/{name}": round(value, 3) for name, value in metrics.items()}
    return figures | {f"{split}/clips": len(clips.cache.decoded)}, found


def run_evaluation(
    folder: Path | str,
    data: Path | str,
    data_format: str,
    split: str,
    *,
    weights: Weights,
    all_captions: bool,
    rerank: int,
    save: bool,
    out: Path | str | None,
    failures: Path | str | None,
    workers: int | None,
) -> None:
    """Measures a checkpoint on a split, prints the results as JSON, and saves them where asked."""
    folder = Path(folder)
    data = Path(data)
    out = None if out is None else Path(out)
    failures = None if failures is None else Path(failures)
    checkpoint = load_checkpoint(folder)
    clips = load_split(data, data_format, split, checkpoint.model.config.sampling, workers)
    measured = replace(checkpoint, model=rounded(checkpoint.model, weights))
    figures, found = measure(measured, clips, data, split, all_captions=all_captions, rerank=rerank)
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201 - the command's output
    if out is not None:
        out.write_text(text + "\n")
    if failures is not None:
        failures.write_text("".join(json.dumps(line) + "\n" for line in _said(checkpoint.model, clips, found)))
    if save:
        known = checkpoint.provenance.get("metrics", {})
        provenance = {**checkpoint.provenance, "metrics": {**known, **figures}}
        save_checkpoint(replace(checkpoint, provenance=provenance), folder)


def _said(model: Model, clips: Split, found: Evaluation) -> Iterator[dict[str, Any]]:
    """Yields wrong answers, and captions that equal no reference."""
    if found.answers is not None:
        config = model.require("qa", "answering questions").config
        probabilities = (found.answers.logits / config.answer_temperature).softmax(-1)
        best = probabilities.max(-1)
        chosen = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        for row, asked, right, (place, probability) in zip(
            found.answers.rows, found.answers.questions, found.answers.right, chosen, strict=True
        ):
            if not right:
                said = {"said": config.answers[place], "probability": round(probability, 4)}
                yield {"video": str(clips.records[row].video), **asked._asdict(), **said}
    for row, caption in (found.captions or {}).items():
        if caption not in (references := clips.records[row].captions):
            yield {"video": str(clips.records[row].video), "said": caption, "captions": references}


def run_estimator(
    folder: Path | str,
    data: Path | str,
    data_format: str,
    out: Path | str,
    options: EstimatorOptions,
    *,
    workers: int | None,
) -> None:
    """Trains an estimator on a checkpoint's pairs, writes it, and prints its explained variance as JSON."""
    folder = Path(folder)
    data = Path(data)
    out = Path(out)
    checkpoint = load_checkpoint(folder)
    sampling = checkpoint.model.config.sampling
    train, validation = (load_split(data, data_format, split, sampling, workers) for split in ("train", "val"))
    with progress_bar() as progress:
        bar = progress.add_task("training the estimator", total=options.steps)
        estimator, explained = train_estimator(
            checkpoint, train, validation, options, advance=lambda n: progress.advance(bar, n)
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_estimator(estimator, out)
    figures = {f"val/{level}/explained_variance": round(value, 4) for level, value in explained.items()}
    print(json.dumps(figures, indent=2))  # noqa: T201 - the command's output
