"""What every recipe says fits together: its data set is one that is read, and its model has what its objective asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbi_training.data.formats import READERS
from hbi_training.model.config import HBIConfig
from hbi_training.run.recipe import load_recipe
from tests.paths import RECIPES as RECIPES_FOLDER

RECIPES = sorted(RECIPES_FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
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
