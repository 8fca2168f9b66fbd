"""Makes a bundle of random weights that can do every task, at the size of a recipe's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hbi_export.bundle import export_bundle
from hbi_export.random_bundle import random_checkpoint
from hbi_infer.model.tokenizer import clip_tokenizer_json
from hbi_training.data.shapes import captions, scenes
from hbi_training.data.shapes.questions import ANSWERS
from hbi_training.run.recipe import load_recipe

SHAPES = Path(__file__).parent.parent / "training" / "recipes" / "shapes.yaml"
PARTS = {"reconstruction_layers": 1, "caption_layers": 2, "answers": ANSWERS}
NUM_SCENES = 2000
"""Number of scenes whose captions hold every word of shapes."""


def write_random_bundle(folder: Path, recipe: Path = SHAPES) -> Path:
    """Writes a bundle of the sizes of a recipe's model, with an answer head and a caption decoder of two layers."""
    rng = np.random.default_rng(0)
    corpus = [text for scene in scenes(0, "train", NUM_SCENES) for text in captions(scene, rng)]
    section = {**load_recipe(recipe).model, **PARTS}
    export_bundle(random_checkpoint(section, clip_tokenizer_json(corpus), recipe.stem), folder)
    return folder
