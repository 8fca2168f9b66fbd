"""Measures what each part of the objective gives, on the same small model, budget and clips, for three seeds.

    python benchmarks/ablation.py --data data/shapes [--runs runs/ablation] [--seeds 0 1 2] [--set optimiser.steps=600]

Each run is `hbi-train retrieval` with training/recipes/shapes_ablation.yaml; finished runs are not repeated, and an
interrupted one goes on. Every run is measured on the test split. Writes
benchmarks/results/ablation.json, from which scripts/make_pictures.py draws docs/ablation.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import write_result

from hbi_training.data.frame_cache import Split
from hbi_training.run.commands import load_recipe_split, measure, train_recipe
from hbi_training.run.recipe import Recipe, load_recipe
from hbi_training.weights.checkpoint import load_checkpoint

RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "shapes_ablation.yaml"

# The action and event levels do not count in the score where nothing supervises them.
ENTITY_ALONE = {"model.level_rates": "[1, 0, 0]", "objective.deep_supervision": "0", "objective.self_distillation": "0"}
BANZHAF = {"objective.banzhaf": "1.0"}
DEEP = {"objective.self_distillation": "0"}
RECONSTRUCTION = {"model.reconstruction_layers": "1", "objective.reconstruction": "0.5"}
LOCAL = {"model.frame_window": "1", "model.word_window": "3", "model.context_layers": "1"}
WORDS_ALONE = {"model.marks_play": "false"}
EVEN = {"objective.weight_entropy": "2.0"}
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "contrastive": ENTITY_ALONE,
    "+ Banzhaf": ENTITY_ALONE | BANZHAF,
    "+ deep supervision": DEEP | BANZHAF,
    "+ self-distillation": BANZHAF,
    "+ reconstruction": BANZHAF | RECONSTRUCTION,
    "without Banzhaf": {},
    "+ words alone": BANZHAF | WORDS_ALONE,
    "+ neighbours alone": BANZHAF | WORDS_ALONE | LOCAL,
    "+ even weights": BANZHAF | WORDS_ALONE | LOCAL | EVEN,
    "even weights without Banzhaf": WORDS_ALONE | LOCAL | EVEN,
    "Banzhaf sampled": ENTITY_ALONE | BANZHAF | {"objective.banzhaf_samples": "5"},
}
RERANK = 20
FIGURES = ("text_to_video/R@1", "video_to_text/R@1", "text_to_video/R@5", "video_to_text/R@5")
GROUNDING = tuple(
    f"grounding/{level}/verb/pointing/{name}"
    for level in ("entity", "action", "event")
    for name in ("interaction", "cosine")
)


class Runs:
    """Runs of the ablation, on clips that are read once for all of them.

    Args:
        recipe: Recipe that all runs have in common.
        folder: Folder of the runs.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    @cached_property
    def splits(self) -> list[Split]:
        """Training, validation and test clips."""
        return [load_recipe_split(self.recipe, split) for split in ("train", "val", "test")]

    def measure(self, name: str, seed: int, overrides: Mapping[str, str]) -> dict[str, float]:
        """Trains and measures one configuration, or reads the figures of a finished run."""
        words = "".join(c if c.isalnum() else " " for c in name).split()
        run_folder = self.folder / f"{'_'.join(words).lower()}_seed{seed}"
        result = run_folder / "test.json"
        recipe = load_recipe(RECIPE, {**overrides, "seed": str(seed)})
        if not result.exists():
            train, validation, test = self.splits
            model = train_recipe(recipe, run_folder, train, validation)
            rerank = RERANK if "model.reconstruction_layers" in overrides else 0
            figures, _ = measure(load_checkpoint(model), test, Path(recipe.data.folder), "test", rerank=rerank)
            result.write_text(json.dumps(figures, indent=2))
        return read_run(run_folder)


def read_run(run_folder: Path) -> dict[str, float]:
    """Returns the figures of a run, and the median time of a step."""
    measured: dict[str, float] = json.loads((run_folder / "test.json").read_text())
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    # The median over lines is unchanged where a run was held up for a while.
    begin = [{"step": 0, "seconds": 0.0}]
    paces = [
        (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for before, after in pairwise(begin + [line for line in lines if "loss/total" in line])
    ]
    measured["seconds_per_step"] = round(statistics.median(paces), 3) if paces else lines[-1]["seconds"]
    return measured


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Returns mean and standard deviation over seeds, and each seed's figures."""
    row: dict[str, Any] = {"seconds_per_step": statistics.median(run["seconds_per_step"] for run in runs)}
    for figure in (*FIGURES, *(f"reranked/{figure}" for figure in FIGURES), *GROUNDING):
        if f"test/{figure}" not in runs[0]:
            continue
        values = [run[f"test/{figure}"] for run in runs]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        row[figure] = {"mean": round(statistics.mean(values), 2), "deviation": round(deviation, 2), "seeds": values}
    return row


def budget(recipe: Recipe) -> dict[str, Any]:
    """Returns the budget of every run."""
    return {"steps": recipe.optimiser.steps, "batch_size": recipe.optimiser.batch_size, "recipe": RECIPE.name}


def main() -> None:
    """Does the missing runs and writes the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    common = {"data.folder": str(options.data), **dict(pair.split("=", 1) for pair in options.overrides)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in CONFIGURATIONS}
    recipe = load_recipe(RECIPE, common)
    runs = Runs(recipe, options.runs)
    for seed in options.seeds:  # seed by seed: a first answer early
        for name, overrides in CONFIGURATIONS.items():
            rows[name].append(runs.measure(name, seed, {**common, **overrides}))
            done = {name: summary(measured) for name, measured in rows.items() if measured}
            path = write_result(
                "ablation", {**budget(recipe), "test_clips": int(rows[name][-1]["test/clips"]), "rows": done}
            )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
