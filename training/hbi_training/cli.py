"""`hbi-train`: makes data sets, trains models and measures them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hbi_engines.operating_system import one_thread_a_product
from hbi_infer.errors import TrainingError
from hbi_infer.render.stdout import bugs_told, errors_told
from hbi_infer.render.usage import PrintableGroup

if TYPE_CHECKING:
    from hbi_training.run.commands import TrainingTask

app = typer.Typer(
    cls=PrintableGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Train HBI models: data sets, recipes, measurements.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make data sets.")
app.add_typer(data_app, name="data")

Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe.")]
DataFolder = Annotated[Path | None, typer.Option("--data", help="The data set's folder, instead of the recipe's.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; by default one per core.")]


@data_app.command("shapes")
def data_shapes(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    num: Annotated[
        int, typer.Option(min=10, help="Number of clips: 80 % training, 10 % validation, 10 % test.")
    ] = 10_000,
    num_val: Annotated[int | None, typer.Option(help="Validation clips, instead of 10 %.")] = None,
    num_test: Annotated[int | None, typer.Option(help="Test clips, instead of 10 %.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same clips.")] = 0,
    workers: Workers = None,
) -> None:
    """Draw short clips of moving coloured shapes, with captions, questions and near misses.

    Example: hbi-train data shapes --out data/shapes --num 2000
    """
    from hbi_training.data.shapes import write_shapes

    val, test = num // 10 if num_val is None else num_val, num // 10 if num_test is None else num_test
    if val + test >= num:
        raise TrainingError(f"--num {num} leaves no training clips beside {val} for validation and {test} for testing")
    write_shapes(out, num - val - test, val, test, seed=seed, workers=workers)


def _training_command(task: TrainingTask, help_text: str) -> None:
    """Adds the command that trains for a task; all of them take the same options and resume where they stopped."""

    @app.command(task, help=help_text)
    def train(
        recipe: Annotated[Path, typer.Option(help="The YAML recipe.")],
        out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/NAME.")] = None,
        data: DataFolder = None,
        override: Overrides = [],  # noqa: B006 - typer reads the default, nothing changes it
        restart: Annotated[bool, typer.Option("--restart", help="Delete the run's folder and begin anew.")] = False,
        workers: Workers = None,
        cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    ) -> None:
        pairs = dict(_pair(text) for text in override)  # before the slow imports, for mistakes to show at once
        if data is not None:
            pairs["data.folder"] = str(data)
        from hbi_training.run.commands import run_training
        from hbi_training.run.recipe import load_recipe

        run_training(load_recipe(recipe, pairs), out, task=task, restart=restart, workers=workers, cpu=cpu)


_training_command(
    "retrieval",
    "Train for retrieval; the same command resumes a stopped run.\n\n"
    "Example: hbi-train retrieval --recipe training/recipes/shapes.yaml --data data/shapes",
)
_training_command(
    "qa",
    "Train to answer questions, with the recipe's other terms; the same command resumes a stopped run.\n\n"
    "Example: hbi-train qa --recipe training/recipes/msrvtt_qa.yaml --data MSRVTT-QA",
)
_training_command(
    "caption",
    "Train to write captions, with the recipe's other terms; the same command resumes a stopped run.\n\n"
    "Example: hbi-train caption --recipe training/recipes/msrvtt_caption.yaml --data MSRVTT",
)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint: runs/NAME/model.")],
    data: Annotated[Path, typer.Option(help="The data set's folder.")],
    data_format: Annotated[str, typer.Option("--format", help="The data set's format.")] = "manifest",
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    weights: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Round the weights first, as a bundle stores them."),
    ] = "float32",
    all_captions: Annotated[
        bool, typer.Option("--all-captions", help="Search by all captions, not one per clip.")
    ] = False,
    rerank: Annotated[int, typer.Option(min=0, help="Reorder the best N per query by reconstructed tokens.")] = 0,
    save: Annotated[bool, typer.Option("--save", help="Add the results to the checkpoint's provenance.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the results to this JSON file.")] = None,
    failures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write wrong answers, and captions that equal no reference, as JSON lines."),
    ] = None,
    workers: Workers = None,
) -> None:
    """Measure a checkpoint on all of its tasks: retrieval both ways (recall, ranks), answers, captions.

    Example: hbi-train evaluate runs/shapes/model --data data/shapes --split test
    """
    from hbi_training.run.commands import run_evaluation

    run_evaluation(
        checkpoint,
        data,
        data_format,
        split,
        weights=weights,
        all_captions=all_captions,
        rerank=rerank,
        save=save,
        out=out,
        failures=failures,
        workers=workers,
    )


@app.command()
def estimator(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint: runs/NAME/model.")],
    data: Annotated[Path, typer.Option(help="The data set's folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The .safetensors file to write.")],
    data_format: Annotated[str, typer.Option("--format", help="The data set's format.")] = "manifest",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 300,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the hidden layer.")] = 64,
    workers: Workers = None,
) -> None:
    """Train the papers' estimator network on the exact Banzhaf interaction.

    Only the papers' ablation (objective.variant=released) needs it.

    Example: hbi-train estimator runs/shapes/model --data data/shapes -o estimator.safetensors
    """
    from hbi_training.run.commands import run_estimator
    from hbi_training.run.estimator_training import EstimatorOptions

    run_estimator(checkpoint, data, data_format, out, EstimatorOptions(steps=steps, channels=channels), workers=workers)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainingError(f"--set takes KEY=VALUE, such as optimiser.steps=100, not '{text}'")
    return key, value


def main() -> None:
    """Runs the command line."""
    one_thread_a_product()
    with bugs_told(), errors_told():
        app()
