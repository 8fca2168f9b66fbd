"""Which optimiser and which rate each parameter has, and how rates change over the steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from hbi_training.data.frame_cache import Split
from hbi_training.run.optimisers import learning_rate_factor
from hbi_training.run.recipe import OptimiserOptions
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import (
    tiny_recipe,
)


def test_muon_takes_the_matrices_and_no_table(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-4, "matrices": "muon"}
    trainer = Trainer(tiny_recipe(optimiser=options), *splits, tmp_path, cpu=True)
    names = {id(parameter): name for name, parameter in trainer.step_module.named_parameters()}
    adamw, muon = (
        {names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]}
        for optimiser in trainer.optimisers
    )
    assert adamw.isdisjoint(muon)
    assert adamw | muon == set(names.values())
    assert not any("embedding" in name or name.endswith("bias") for name in muon)
    assert "model.text_hierarchy.merges.action.attention.query.weight" in muon
    assert {group["initial_lr"] for group in trainer.optimisers[1].param_groups} == {1e-3, 1e-4}


def test_positions_have_a_rate_of_their_own(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-4}
    options["position_learning_rate"] = 1e-2
    trainer = Trainer(tiny_recipe(optimiser=options), *splits, tmp_path, cpu=True)
    names = {id(parameter): name for name, parameter in trainer.step_module.named_parameters()}
    groups = [group for optimiser in trainer.optimisers for group in optimiser.param_groups]
    fast = [parameter for group in groups if group["initial_lr"] == 1e-2 for parameter in group["params"]]
    assert {names[id(parameter)] for parameter in fast} == {
        "model.frame_encoder.vision.embeddings.position_embedding.weight",
        "model.word_encoder.text.embeddings.position_embedding.weight",
        "model.temporal_transformer.position.weight",
    }


def test_learning_rate_schedule() -> None:
    options = OptimiserOptions(
        steps=100, batch_size=1, learning_rate=1, clip_learning_rate=1, warmup_steps=10, decay_steps=40
    )
    factors = [learning_rate_factor(step, options) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:61] == [1.0] * 52
    assert factors[80] == pytest.approx(0.5)
    assert factors[100] == 0
    assert all(a >= b for a, b in pairwise(factors[60:]))
