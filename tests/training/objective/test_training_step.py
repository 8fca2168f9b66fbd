"""One forward pass of training, for every objective: its terms, what it moves, and what the model must have for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf.estimator import BanzhafEstimator, from_released, save_estimator
from hbi_training.data.batches import Batch
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import VideoRecord
from hbi_training.model.hbi import HBI
from hbi_training.objective.objective import Objective
from hbi_training.objective.training_step import TrainingStep
from hbi_training.run.trainer import Trainer
from hbi_training.weights.checkpoint import load_checkpoint
from hbi_training.weights.released import load_released, released_config
from tests.builders.tiny_training import (
    ALL_TASKS,
    HBI_SECTION,
    MEAN_POOLED_SECTION,
    WITH_RECONSTRUCTION,
    same_weights,
    tiny_recipe,
)
from tests.golden import golden, tensors


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimator") / "estimator.safetensors"
    torch.manual_seed(0)
    save_estimator(BanzhafEstimator(4), path)
    return path


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
        (HBI_SECTION, {"answering": 1.0}, ["answer", "answer_levels"]),
        (ALL_TASKS, {"captioning": 0.5}, ["caption"]),
        (ALL_TASKS, {"captioning": 0.5, "answering": 1.0, "reconstruction": 1.0}, ["caption", "answer"]),
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
    with pytest.raises(TrainingError, match="needs a model with caption_layers"):
        Trainer(tiny_recipe(objective={"captioning": 1.0}), *splits, tmp_path, cpu=True)
    silent = Split([VideoRecord(record.video, record.captions) for record in splits[0].records], splits[0].cache)
    with pytest.raises(TrainingError, match="and clips with questions"):
        Trainer(tiny_recipe(objective={"answering": 1.0}), silent, splits[1], tmp_path, cpu=True)


def test_questions_of_a_batch_are_asked_of_their_own_clips(splits: tuple[Split, Split], tmp_path: Path) -> None:
    recipe = tiny_recipe(objective={"answering": 1.0})
    trainer = Trainer(recipe, *splits, tmp_path, cpu=True)
    assert isinstance(trainer.model, HBI)
    answers = trainer.model.config.answers
    batch = trainer.batches[0]
    assert batch.question_ids is not None
    assert batch.answers is not None
    order = np.random.default_rng([recipe.seed, 0, 0]).permutation(len(trainer.batches.records))[:8]
    for row, number in enumerate(order):
        record = trainer.batches.records[number]
        asked = {q.question: q.answer for q in record.questions}
        encoded = {tuple(trainer.tokenizer.encode([q], 40).ids[0]): answer for q, answer in asked.items()}
        ids = tuple(batch.question_ids[row, : int(batch.question_mask[row].sum())].tolist())  # type: ignore[index]
        assert encoded[ids] == answers[batch.answers[row]]
    rare = trainer.batches
    rare.place_of_answer = {"no such answer": 0}
    assert rare[0].answers is not None
    assert (rare[0].answers == -1).all()
    loss, terms = trainer.step_module(rare[0])
    assert torch.isfinite(loss)
    assert terms["answer"] == 0


@pytest.fixture(scope="module")
def released_step(tmp_path_factory: pytest.TempPathFactory) -> TrainingStep:
    """The released small model with its students and its teacher, for captions of up to 24 words."""
    weights = tensors(golden("retrieval_tiny_weights.npz"), "")
    model = HBI(released_config(weights, max_words=24))
    load_released(model, weights)
    teacher = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(tensors(golden("retrieval_tiny_weights.npz"), "banzhafteacher."), teacher)
    objective = Objective(variant="released", banzhaf=0.7, self_distillation=2.0, estimator=str(teacher))
    step = TrainingStep(model, objective)
    for level, name in zip(step.students, ("banzhafmodel.", "banzhafmodel0.", "banzhafmodel1."), strict=True):
        step.students[level].load_state_dict(from_released(tensors(golden("retrieval_tiny_weights.npz"), name)))
    return step.train()


def padded_batch() -> Batch:
    """Pairs of 5 captions of 24, 9, 7, 16 and 11 tokens and 5 clips of 12, 7, 10, 12 and 5 frames."""
    generator = torch.Generator().manual_seed(0)
    lengths, num_frames = torch.tensor([24, 9, 7, 16, 11]), torch.tensor([12, 7, 10, 12, 5])
    ids = torch.randint(1, 80, (5, 24), generator=generator)
    token_mask = torch.arange(24) < lengths[:, None]
    frames = torch.randint(0, 256, (5, 12, 32, 32, 3), generator=generator).to(torch.uint8)
    return Batch(frames, torch.arange(12) < num_frames[:, None], ids * token_mask, token_mask)


def released_loss(step: TrainingStep, batch: Batch) -> torch.Tensor:
    """The released training loss of retrieval, written once more from its description, pair by pair."""
    text = step.model.encode_text(batch.token_ids, batch.token_mask)
    video = step.model.encode_video(batch.frames, batch.frame_mask)
    pairs = range(len(batch.frames))
    scale = step.model.logit_scale.exp()
    similarity, total = {}, torch.zeros(())
    for level in text:
        is_word, is_frame = batch.token_mask.float(), batch.frame_mask.float()
        if level != "entity":
            is_word, is_frame = (torch.ones(side[level].tokens.shape[:2]) for side in (text, video))
        words, frames = (side[level].tokens / side[level].tokens.norm(dim=-1, keepdim=True) for side in (text, video))
        alpha, beta = (
            (getattr(step.model, f"{side}_hierarchy").weights[level].network(tokens[level].tokens)[..., 0])
            .where(real > 0, torch.tensor(-9e15))
            .softmax(-1)
            for side, tokens, real in (("text", text, is_word), ("video", video, is_frame))
        )
        rows, matched = [], []
        for a in pairs:
            row = []
            for b in pairs:
                cosines = words[a] @ frames[b].T * is_word[a][:, None] * is_frame[b]
                best = (alpha[a] * cosines.max(1).values).sum() + (beta[b] * cosines.max(0).values).sum()
                row.append(best / 2)
                matched += [cosines] if a == b else []
            rows.append(torch.stack(row))
        x, maps = torch.stack(rows), torch.stack(matched)
        real = is_word[:, :, None] * is_frame[:, None]
        student = step.students[level](maps) * real
        assert step.teacher is not None
        teacher = (step.teacher(maps) * real).detach()
        contrastive = sum(-(scale * y).log_softmax(-1).diagonal().mean() for y in (x, x.T)) / 2
        alignment = kl(student, teacher) + kl(student.permute(2, 1, 0), teacher.permute(2, 1, 0))
        total = total + contrastive + step.objective.banzhaf * alignment
        similarity[level] = x
    entity = similarity["entity"]
    levels = [kl(x, entity) + kl(x.T, entity.T) for x in (similarity["action"], similarity["event"])]
    return total + step.objective.self_distillation * sum(levels)


def kl(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    wanted = target.softmax(-1)
    return (wanted * (wanted.log() - prediction.log_softmax(-1))).mean()


@pytest.mark.parametrize("longest", [24, 16])
def test_the_released_loss_of_a_padded_batch_and_its_gradients(released_step: TrainingStep, longest: int) -> None:
    """Also where the longest caption of the batch is shorter than the model's: there it is padded all the same."""
    batch = padded_batch()
    if longest < 24:
        token_mask = batch.token_mask & (torch.arange(24) < longest)
        batch = replace(batch, token_ids=batch.token_ids * token_mask, token_mask=token_mask)
    parameters = dict(released_step.named_parameters())
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    expected = released_loss(released_step, batch)
    wanted = torch.autograd.grad(expected, list(trained.values()), allow_unused=True)
    cut = replace(batch, token_ids=batch.token_ids[:, :longest], token_mask=batch.token_mask[:, :longest])
    loss, terms = released_step(cut)
    assert len(terms) == 3 + 3 + 2
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    moved = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is not None]
    assert moved == [name for name, gradient in zip(trained, wanted, strict=True) if gradient is not None]
    for name, gradient, other in zip(trained, gradients, wanted, strict=True):
        if gradient is not None:
            # The bias of keys does not move a softmax: its gradient is rounding.
            allowed = 1e-4 * float(other.abs().max()) + 1e-7
            torch.testing.assert_close(gradient, other, rtol=0, atol=allowed, msg=name)
