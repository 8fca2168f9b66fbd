"""What the commands of `hbi-train` do: load data, show progress, run, write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hbi_infer.options import FrameSampling
from hbi_training.banzhaf_estimator import save_estimator
from hbi_training.checkpoint import load_checkpoint, save_checkpoint
from hbi_training.config import from_mapping
from hbi_training.data.formats import load_records
from hbi_training.data.frame_cache import FrameCache, Split
from hbi_training.estimator_training import EstimatorOptions, train_estimator
from hbi_training.evaluation import evaluate_retrieval
from hbi_training.recipe import Recipe
from hbi_training.trainer import Trainer

console = Console(stderr=True)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar with rates and the time left on a terminal, silence elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        yield progress


def load_split(folder: Path, data_format: str, split: str, sampling: FrameSampling, workers: int | None) -> Split:
    """Reads the records of a split and decodes what is not yet in the cache (in `folder/frames`)."""
    records = load_records(data_format, folder, split)
    cache = FrameCache(folder / "frames", records, sampling)
    with progress_bar() as progress:
        bar = progress.add_task(f"decoding {split}", total=len(records))
        failures = cache.fill(workers=workers, advance=lambda n: progress.advance(bar, n))
    for path, reason in failures.items():
        console.print(f"left out: {path}: {reason}", markup=False, highlight=False)
    return Split(records, cache)


def run_retrieval(recipe: Recipe, out: Path | None, *, restart: bool, workers: int | None, cpu: bool) -> None:
    """Trains a recipe in `out`, from its newest checkpoint unless `restart`."""
    run_folder = out or Path("runs") / recipe.name
    if restart:
        shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True, exist_ok=True)
    sampling = from_mapping(FrameSampling, recipe.model.get("sampling", {}), "sampling")
    folder = Path(recipe.data.folder)
    train = load_split(folder, recipe.data.format, "train", sampling, workers)
    validation = load_split(folder, recipe.data.format, "val", sampling, workers)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    trainer = Trainer(recipe, train, validation, run_folder, say=say, cpu=cpu)
    trainer.resume()
    with progress_bar() as progress:
        bar = progress.add_task(f"training {recipe.name}", total=recipe.optimiser.steps)
        trainer.run(advance=lambda n: progress.advance(bar, n))
    say(f"the model is {run_folder / 'model'}; export it with: hbi-export onnx {run_folder / 'model'} -o BUNDLE")


def run_evaluation(
    folder: Path,
    data: Path,
    data_format: str,
    split: str,
    *,
    all_captions: bool,
    rerank: int,
    save: bool,
    out: Path | None,
    workers: int | None,
) -> None:
    """Measures a checkpoint on a split; prints JSON, and keeps it where asked."""
    checkpoint = load_checkpoint(folder)
    clips = load_split(data, data_format, split, checkpoint.model.config.sampling, workers)
    metrics = evaluate_retrieval(
        checkpoint.model, clips.records, clips.cache, checkpoint.tokenizer, all_captions=all_captions, rerank=rerank
    )
    figures = {f"{split}/{name}": round(value, 3) for name, value in metrics.items()}
    figures[f"{split}/clips"] = len(clips.cache.decoded)
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201 - the result
    if out is not None:
        out.write_text(text + "\n")
    if save:
        known = checkpoint.provenance.get("metrics", {})
        provenance = {**checkpoint.provenance, "metrics": {**known, **figures}}
        save_checkpoint(replace(checkpoint, provenance=provenance), folder)


def run_estimator(
    folder: Path, data: Path, data_format: str, out: Path, options: EstimatorOptions, *, workers: int | None
) -> None:
    """Trains an estimator on a checkpoint's pairs, writes it, and prints how well it does as JSON."""
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
    print(json.dumps(figures, indent=2))  # noqa: T201 - the result
