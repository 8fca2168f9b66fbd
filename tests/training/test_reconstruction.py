"""Reconstructed tokens: the identity at first, blind to padding, of a pair or of a video alone; and the objectives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf_estimator import BanzhafEstimator, save_estimator
from hbi_training.checkpoint import load_checkpoint
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation import evaluate_retrieval
from hbi_training.model import HBI, LevelTokens
from hbi_training.reconstruction import Reconstruction
from hbi_training.token_interaction import Tokens
from hbi_training.trainer import Trainer
from tests.training.tiny import HBI_SECTION, MEAN_POOLED_SECTION, same_weights, shapes_splits, tiny_recipe

LEVELS = ("entity", "event")
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    return shapes_splits(tmp_path_factory.mktemp("shapes"))


def reconstruction(seed: int = 0, *, trained: bool = True) -> Reconstruction:
    torch.manual_seed(seed)
    module = Reconstruction(width=16, levels=LEVELS, layers=2, heads=2).eval()
    if trained:
        torch.nn.init.normal_(module.gate.weight, std=0.3)
    return module


def side(batch: int, *sizes: int, lengths: tuple[int, ...] = ()) -> LevelTokens:
    levels = {}
    for level, size in zip(LEVELS, sizes, strict=True):
        mask = torch.ones(batch, size, dtype=torch.bool)
        for item, length in enumerate(lengths):
            mask[item, min(length, size) :] = False
        levels[level] = Tokens(torch.randn(batch, size, 16), mask / mask.sum(-1, keepdim=True), mask)
    return levels


def test_it_starts_as_the_identity() -> None:
    text, video = side(2, 5, 2), side(2, 4, 1)
    for given, made in zip((text, video), reconstruction(trained=False)(text, video), strict=True):
        for level in LEVELS:
            assert torch.equal(given[level].tokens, made[level].tokens)


def test_it_learns_from_its_first_step() -> None:
    module = reconstruction(trained=False)
    text, _ = module(side(2, 5, 2), side(2, 4, 1))
    text["entity"].tokens.square().sum().backward()
    assert module.gate.weight.grad is not None
    assert module.gate.weight.grad.abs().max() > 0


def test_each_side_sees_the_other_and_no_padding() -> None:
    module = reconstruction()
    text, video = side(2, 5, 2, lengths=(5, 3)), side(2, 4, 1)
    plain_text, plain_video = module(text, video)
    noisy = {k: v._replace(tokens=torch.where(v.mask[..., None], v.tokens, 100.0)) for k, v in text.items()}
    for plain, other in zip((plain_text, plain_video), module(noisy, video), strict=True):
        for level in LEVELS:
            real = plain[level].mask
            torch.testing.assert_close(plain[level].tokens[real], other[level].tokens[real], rtol=0, atol=ROUNDING)
    changed = {k: v._replace(tokens=v.tokens.flip(-1) if k == "event" else v.tokens) for k, v in video.items()}
    other_text, _ = module(text, changed)
    assert (plain_text["entity"].tokens - other_text["entity"].tokens).abs().max() > 1e-3


def test_a_video_alone_is_a_video_whose_text_is_all_padding() -> None:
    module = reconstruction()
    text, video = side(2, 5, 2, lengths=(0, 0)), side(2, 4, 1)
    beside_nothing, alone = module(text, video)[1], module({}, video)[1]
    for level in LEVELS:
        torch.testing.assert_close(beside_nothing[level].tokens, alone[level].tokens, rtol=0, atol=ROUNDING)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimator") / "estimator.safetensors"
    save_estimator(BanzhafEstimator(4), path)
    return path


WITH_RECONSTRUCTION = {**HBI_SECTION, "reconstruction_layers": 1}
BANZHAF = [f"banzhaf_{level}" for level in ("entity", "action", "event")]
RECONSTRUCTION = [f"reconstruction_{level}" for level in ("entity", "action", "event")]


@pytest.mark.parametrize(
    ("model", "objective", "terms"),
    [
        (HBI_SECTION, {"banzhaf": 1.0}, BANZHAF),
        (HBI_SECTION, {"banzhaf": 1.0, "banzhaf_samples": 2, "hard_negatives": 1}, BANZHAF),
        (WITH_RECONSTRUCTION, {"reconstruction": 1.0, "hard_negatives": 2}, RECONSTRUCTION),
        (WITH_RECONSTRUCTION, {"reconstruction": 1.0, "banzhaf": 0.5}, RECONSTRUCTION + BANZHAF),
        (HBI_SECTION, {"variant": "released", "banzhaf": 1.0, "estimator": "to be filled in"}, BANZHAF),
    ],
)
def test_objectives_train(
    splits: tuple[Split, Split],
    tmp_path: Path,
    estimator: Path,
    model: dict[str, Any],
    objective: dict[str, Any],
    terms: list[str],
) -> None:
    if "estimator" in objective:
        objective = {**objective, "estimator": str(estimator)}
    trainer = Trainer(tiny_recipe(model=model, objective=objective), *splits, tmp_path, cpu=True)
    before = {name: tensor.clone() for name, tensor in trainer.step_module.state_dict().items()}
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss/total" in line]
    assert all(abs(line[f"loss/{term}"]) > 0 for line in losses for term in terms)
    after = trainer.step_module.state_dict()
    moved = {part(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {part(name) for name in before if not name.startswith("teacher.")}
    assert same_weights(load_checkpoint(tmp_path / "model").model, trainer.model)


def part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_what_the_model_lacks_is_said(splits: tuple[Split, Split], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs a model of kind hbi"):
        Trainer(tiny_recipe(model=MEAN_POOLED_SECTION, objective={"banzhaf": 1.0}), *splits, tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="needs a model with reconstruction_layers"):
        Trainer(tiny_recipe(objective={"reconstruction": 1.0}), *splits, tmp_path, cpu=True)


def test_a_run_begun_before_an_option_was_known_is_resumed(splits: tuple[Split, Split], tmp_path: Path) -> None:
    Trainer(tiny_recipe(), *splits, tmp_path, cpu=True).save()
    progress = tmp_path / "checkpoints" / "step_00000000" / "progress.json"
    content = json.loads(progress.read_text())
    del content["recipe"]["objective"]["banzhaf"]
    progress.write_text(json.dumps(content))
    again = Trainer(tiny_recipe(), *splits, tmp_path, cpu=True)
    again.resume()
    assert again.step == 0


def test_reranking_orders_the_best_by_reconstructed_tokens(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(model=WITH_RECONSTRUCTION, objective={"reconstruction": 1.0, "hard_negatives": 1})
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    model, validation = trainer.model, splits[1]
    assert isinstance(model, HBI)
    assert model.reconstruction is not None

    def measure(rerank: int) -> dict[str, float]:
        return evaluate_retrieval(model, validation.records, validation.cache, trainer.tokenizer, rerank=rerank)

    untrained = measure(3)
    for way in ("text_to_video", "video_to_text"):
        assert untrained[f"reranked/{way}/MnR"] == untrained[f"{way}/MnR"]  # the identity changes no order
    torch.nn.init.normal_(model.reconstruction.gate.weight, std=0.5)
    changed = measure(3)
    for way in ("text_to_video", "video_to_text"):
        assert changed[f"{way}/MnR"] == untrained[f"{way}/MnR"]
        assert changed[f"reranked/{way}/R@5"] >= 0
    assert any(changed[name] != untrained[name] for name in changed)
    assert measure(1)["reranked/text_to_video/R@1"] == untrained["text_to_video/R@1"]
    plain = Trainer(tiny_recipe(), *splits, tmp_path / "plain", cpu=True)
    with pytest.raises(TrainingError, match="has no reconstruction to rerank with"):
        evaluate_retrieval(plain.model, validation.records, validation.cache, plain.tokenizer, rerank=3)
