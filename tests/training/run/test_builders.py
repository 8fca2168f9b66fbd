"""The parts of a run: chosen precision, frozen parts, recipes that do not fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.data.frame_cache import Split
from hbi_training.run.builders import uses_processor
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import (
    ALL_TASKS,
    FROZEN,
    HBI_SECTION,
    SAMPLING,
    tiny_recipe,
)

HEADS_ALONE = {"contrastive": 0, "deep_supervision": 0, "self_distillation": 0, "answering": 1.0, "captioning": 1.0}


def heads_recipe(**optimiser: Any) -> Any:
    options = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3, "frozen": FROZEN}
    data = {"format": "manifest", "folder": "unused", "vocabulary": "corpus"}
    return tiny_recipe(model=ALL_TASKS, objective=HEADS_ALONE, data=data, optimiser={**options, **optimiser})


WITHOUT_CLIP = {key: value for key, value in HBI_SECTION.items() if key != "clip"}

VISION = HBI_SECTION["clip"]["vision_config"]


def test_frozen_parts_stay_and_their_tokens_are_computed_once(splits: tuple[Split, Split], tmp_path: Path) -> None:
    said: list[str] = []
    trainer = Trainer(heads_recipe(), *splits, tmp_path, say=said.append, cpu=True)
    assert said == [f"computing the tokens of {len(splits[0].records)} clips, which stay as they are"]
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    # The same loss as with frames that are looked at.
    step, batch = trainer.step_module.eval(), trainer.batches[0]
    known, terms = step(batch)
    assert set(terms) == {"answer", "answer_levels", "caption"}
    tokens, step.known_tokens = step.known_tokens, None
    assert torch.allclose(step(batch)[0], known, rtol=1e-5)
    step.known_tokens = tokens
    trainer.run()
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"reconstruction", "answer_head", "caption_decoder"}

    again = Trainer(heads_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    assert again.step == 3


def test_features_of_a_frozen_frame_encoder_are_computed_once(splits: tuple[Split, Split], tmp_path: Path) -> None:
    said: list[str] = []
    data = {"format": "manifest", "folder": "unused", "vocabulary": "corpus"}
    options = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3}
    recipe = tiny_recipe(data=data, optimiser={**options, "frozen": ["frame_encoder"]})
    trainer = Trainer(recipe, *splits, tmp_path, say=said.append, cpu=True)
    assert said == ["the frames' features, which stay as they are: 24 of 24 clips"]
    step, batch = trainer.step_module.eval(), trainer.batches[0]
    known = step(batch)[0]
    step.known_features = None
    assert torch.allclose(step(batch)[0], known, rtol=1e-5)


def test_stills_train_the_frame_encoder_alone(splits: tuple[Split, Split], data_folder: Path, tmp_path: Path) -> None:
    data = {"format": "manifest", "folder": str(data_folder), "vocabulary": "corpus"}
    objective = {"contrastive": 0, "deep_supervision": 0, "self_distillation": 0, "stills": 1.0}
    trainer = Trainer(tiny_recipe(data=data, objective=objective), *splits, tmp_path, cpu=True)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    assert set(trainer.step_module(trainer.batches[0])[1]) == {"stills"}
    trainer.run()
    after = trainer.model.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"frame_encoder"}
    shifted = tiny_recipe(data={**data, "shift_pixels": 1}, objective=objective)
    with pytest.raises(TrainingError, match=r"needs frames where they were drawn: set data\.shift_pixels to 0"):
        Trainer(shifted, *splits, tmp_path / "shifted", cpu=True)


def test_a_part_that_cannot_be_frozen_is_named(splits: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="frozen names text_encoder, which the model does not have; it has frame_"):
        Trainer(heads_recipe(frozen=["text_encoder"]), *splits, tmp_path, cpu=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_auto_is_bfloat16_where_the_processor_has_it(splits: tuple[Split, Split], tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "clip_learning_rate": 1e-3}
    recipe = tiny_recipe(optimiser={**options, "matrices": "muon", "mixed_precision": "auto"})
    said: list[str] = []
    trainer = Trainer(recipe, *splits, tmp_path / "run", cpu=True, say=said.append)
    flags = set(Path("/proc/cpuinfo").read_text().split())
    has = "bf16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "no"
    assert trainer.accelerator.mixed_precision == has
    assert f"mixed precision: {has}" in said
    assert [getattr(optimiser.optimizer, "dtype", None) for optimiser in trainer.optimisers] == [
        None,
        torch.bfloat16 if has == "bf16" else None,
    ]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model", WITHOUT_CLIP, "has no clip"),
        ("model", {**HBI_SECTION, "clip": {"text_config": {}}}, "no projection_dim"),
        ("model", {**HBI_SECTION, "max_words": 41}, "max_words is 41, and clip's text_config has max_position"),
        ("model", {**HBI_SECTION, "temporal_positions": 5}, "temporal_positions is 5, and sampling takes up to 6"),
        (
            "model",
            {**HBI_SECTION, "sampling": {**SAMPLING, "image_size": 64}},
            "frames of 64 pixels, and clip's vision_config has image_size 32",
        ),
        (
            "model",
            {**HBI_SECTION, "clip": {**HBI_SECTION["clip"], "vision_config": {**VISION, "patch_sise": 8}}},
            "unknown key 'patch_sise'; did you mean 'patch_size'?",
        ),
        ("objective", {"hard_negatives": 99}, "the objective's hard_negatives is 99, and some clips"),
    ],
)
def test_a_recipe_that_does_not_fit_together_is_explained(
    splits: tuple[Split, Split], tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        Trainer(tiny_recipe(**{section: changes}), *splits, tmp_path, cpu=True)


@pytest.mark.parametrize(
    ("processes", "here", "num_gpus", "cpu", "expected"),
    [
        ("", "", 0, False, False),
        ("1", "1", 0, False, False),
        ("2", "2", 0, False, True),
        ("2", "2", 2, False, False),
        ("2", "2", 1, True, True),
        ("4", "2", 2, False, False),
    ],
)
def test_several_processes_without_a_gpu_join_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, processes: str, here: str, num_gpus: int, cpu: bool, expected: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert uses_processor(cpu=cpu) is expected


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match="3 processes were started, and only 2 can have a GPU"):
        uses_processor(cpu=False)
