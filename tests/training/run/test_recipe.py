"""Recipes: every one is readable and fits together, and what is wrong in one is explained."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from hbi_infer.errors import TrainingError
from hbi_training.data.formats import READERS
from hbi_training.model.config import HBIConfig
from hbi_training.run.recipe import load_recipe, recipe_from_mapping, recipe_to_mapping
from tests.paths import RECIPES

PATHS = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_fits_together(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.data.format in READERS
    if recipe.model["kind"] != "hbi":
        return
    section = {key: value for key, value in recipe.model.items() if key != "kind"}
    if isinstance(section["clip"], str):
        section["clip"] = {"projection_dim": 512}  # of openai/clip-vit-base-patch32, which a test cannot fetch
    config = HBIConfig.from_json(section)
    assert config.caption_layers or not recipe.objective.writes_captions
    assert config.reconstruction_layers or not recipe.objective.reconstruction
    assert not config.answers  # they come from the training questions
    options = recipe.optimiser
    assert options.warmup_steps + (options.decay_steps or 0) <= options.steps


def test_a_number_that_yaml_reads_as_a_text_is_a_number() -> None:
    overrides = {"optimiser.learning_rate": "2e-3", "optimiser.decay_steps": "null"}
    options = load_recipe(RECIPES / "shapes.yaml", overrides).optimiser
    assert options.learning_rate == 0.002
    assert options.decay_steps is None


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_recipe_is_readable(path: Path) -> None:
    recipe = load_recipe(path, {"optimiser.steps": "7"})
    assert recipe.optimiser.steps == 7
    assert recipe.name
    assert recipe_from_mapping(recipe_to_mapping(recipe), "itself") == recipe


def test_a_bare_no_of_yaml_is_no_mixed_precision(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    rates = "steps: 1, batch_size: 1, learning_rate: 1, clip_learning_rate: 1"
    path.write_text(f"{{name: a, model: {{}}, data: {{format: m, folder: f}}, optimiser: {{{rates}}}}}")
    assert load_recipe(path, {"optimiser.mixed_precision": "no"}).optimiser.mixed_precision == "no"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: [", "is not YAML"),
        ("- a", "is not a mapping"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: many}}",
            "steps is 'many'; it must be a",
        ),
        ("{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: 2.5}}", "must be a whole number"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {mixed_precision: fp8}}",
            "mixed_precision is 'fp8'; choose one of: auto, no, bf16, fp16",
        ),
        ("{name: a, modle: {}}", "unknown key 'modle'; did you mean 'model'?"),
        ("{name: a, model: {}, data: {format: m, folder: f}, optimiser: {stepz: 3}}", "did you mean 'steps'?"),
        (
            "{name: a, model: {}, data: {format: m, folder: f}, optimiser: {steps: 3}}",
            "has no batch_size and no learning_rate and no clip_learning_rate",
        ),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["optimiser.steps", "optimiser.batch_size", "report.log_steps"])
def test_counts_are_at_least_one(key: str) -> None:
    with pytest.raises(TrainingError, match=f"{key.split('.')[1]} is 0; it must be at least 1"):
        load_recipe(RECIPES / "shapes.yaml", {key: "0"})


def laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{this}: &{this} [{', '.join([f'*{last}'] * 10)}]" for last, this in pairwise("abcdefghi")]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (laughs().encode(), "refers to another place: write the values themselves"),
        (b"a: &a [*a]", "refers to another place"),
        (b"a: &a {x: 1}\nb: {<<: [*a, *a]}", "refers to another place"),
        (b"name: " + b"[" * 50_000, "is nested too deep"),
        (b"{" * 2000, "is nested too deep"),
        (b"name: a\0b", "is not YAML"),
        (b'{name: "a\\0b"}', "name is 'a\\x00b'; it must be a text"),
        (b"\xff\xfe\xff", "is not YAML"),
        (b"name: caf\xe9", "is not YAML"),
        (b"#" * 300_000, "has more than 262,144 bytes"),
        (b"name: 2001-99-99", "is not YAML: month must be in 1..12"),
        (b"name: " + b"9" * 5000, "is not YAML"),
        (b"name: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"? [a]\n: b", "is not YAML"),
        (b"1: 2", "has the unknown key '1'"),
        (b"{name: a, optimiser: {steps: 1" + b"0" * 400 + b"}}", "steps is 1000"),
        (b"{name: a, optimiser: {learning_rate: .inf}}", "learning_rate is inf; it must be a number"),
        (b"{name: a, optimiser: {learning_rate: 1e400}}", "learning_rate is inf; it must be a number"),
        (b"{name: a, optimiser: {learning_rate: .nan}}", "learning_rate is nan; it must be a number"),
        (b'{"a\\nb\\e[31m": 1}', r"unknown key 'a\nb\x1b[31m'"),
    ],
)
def test_a_hostile_recipe_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser.steps", "[", "the value of optimiser.steps is not YAML"),
        ("name.first", "a", "name.first cannot be set: name is 'shapes', which is not a section"),
    ],
)
def test_a_value_from_outside_is_one_line(key: str, value: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_recipe(RECIPES / "shapes.yaml", {key: value})
