"""Self-critical captioning: the rewards, the gradient of their expectation, and a stage that raises them."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hbi_infer.errors import DataError, TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import VideoRecord
from hbi_training.evaluation.captions import Cider
from hbi_training.model.caption_decoder import CaptionDecoder, Memory
from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens
from hbi_training.objective.self_critical import CaptionCritic
from hbi_training.run.commands import run_training
from hbi_training.run.recipe import Recipe
from hbi_training.run.trainer import Trainer
from tests.builders.tiny_training import ALL_TASKS, FROZEN, tiny_recipe

CAPTIONS = [["a red ring spins", "a ring that spins"], ["two blue stars grow"], ["a green square"]]

TOKENIZER = Tokenizer.from_json(clip_tokenizer_json([caption for captions in CAPTIONS for caption in captions]))


def critic(num_samples: int) -> CaptionCritic:
    return CaptionCritic(CAPTIONS, TOKENIZER, num_samples=num_samples)


def ids(*texts: str) -> Tensor:
    """From the start to the end, and ends behind it."""
    batch = TOKENIZER.encode(texts, 12)
    return torch.from_numpy(batch.ids).masked_fill(~torch.from_numpy(batch.mask), TOKENIZER.eot_id)


def decoder(
    max_tokens: int = 12,
) -> CaptionDecoder:
    torch.manual_seed(0)
    return CaptionDecoder(
        width=16,
        vocabulary_size=len(TOKENIZER.vocabulary()),
        layers=1,
        heads=2,
        max_tokens=max_tokens,
    )


def read(writer: CaptionDecoder, clips: int) -> Memory:
    torch.manual_seed(1)
    mask = torch.ones(clips, 3, dtype=torch.bool)
    return writer.read({level: Tokens(torch.randn(clips, 3, 16), mask / 3, mask) for level in LEVELS})


def test_a_reward_is_the_cider_of_a_caption_and_its_end() -> None:
    said = ["a red ring spins", "two red stars", "a green square"]
    rewards = critic(1).rewards(ids(*said), torch.tensor([0, 1, 2]))
    ended = [[f"{caption} end" for caption in captions] for captions in CAPTIONS]
    expected = Cider(ended).scores([f"{caption} end" for caption in said], ended) / 100
    torch.testing.assert_close(rewards.double(), torch.from_numpy(expected), rtol=1e-6, atol=0)
    # The same words without an end are worth less, and each clip has captions of its own.
    broken_off = ids("a green square")[:, :4]
    assert TOKENIZER.eot_id not in broken_off
    assert 0 < critic(1).rewards(broken_off, torch.tensor([2])) < rewards[2]
    assert critic(1).rewards(ids("a green square"), torch.tensor([1])) == 0


@pytest.mark.parametrize("num_samples", [1, 4])
def test_the_gradient_is_that_of_the_expected_reward(num_samples: int) -> None:
    """A decoder that writes one or two of five words: all captions can be told, and the expectation differentiated."""
    writer, judge = decoder(max_tokens=3).eval(), critic(num_samples)
    start, end = TOKENIZER.sot_id, TOKENIZER.eot_id
    known = [*TOKENIZER.encode(["a green square red"], 12).ids[0][1:5].tolist(), end]
    with torch.no_grad():
        likely = torch.randn(len(known), 16)
        writer.norm_out.weight[0], writer.norm_out.bias[0] = 0.0, 5.0
        writer.word.weight[:] = 0.0
        writer.word.weight[:, 0] = -5.0  # every other token has a probability of e^-25
        writer.word.weight[known] = likely.index_fill(1, torch.tensor([0]), 0.0)
    memory = read(writer, 1)
    texts = [[start, *pair] for pair in product(known, repeat=2) if pair[0] != end]
    told = torch.tensor([*texts, [start, end, end]])
    every = Memory(*(part.expand(len(told), *part.shape[1:]) for part in memory))
    each = judge.log_probabilities(writer, every, told)
    is_second = told[:, 1] != end
    chances = (each[:, 0] + each[:, 1] * is_second).exp()
    assert chances.sum().item() == pytest.approx(1.0, abs=1e-5)
    expected = (chances * judge.rewards(told, torch.full((len(told),), 2))).sum()
    (exact,) = torch.autograd.grad(expected, writer.level.weight, retain_graph=True)
    exact = exact / (1 + (chances * is_second).sum()).detach()  # the loss is a mean over words

    torch.manual_seed(2)
    many = Memory(*(part.expand(300, *part.shape[1:]) for part in memory))
    estimates, values = [], []
    for _ in range(10):
        loss = judge.loss(writer, many, torch.full((300,), 2))
        (gradient,) = torch.autograd.grad(-loss, writer.level.weight, retain_graph=True)
        estimates.append(gradient)
        values.append(-loss.item())
    spread = torch.tensor(values).std().item() / len(values) ** 0.5
    assert torch.tensor(values).mean().item() == pytest.approx(expected.item(), abs=4 * spread)
    stacked = torch.stack(estimates)
    standard_error = (stacked.var(0).sum() / len(stacked)).sqrt()
    assert exact.norm() > 5 * standard_error
    assert (stacked.mean(0) - exact).norm() < 3 * standard_error


def test_what_is_drawn_has_the_probability_that_is_differentiated() -> None:
    writer, judge = decoder(), critic(3)
    writer.train()
    memory = read(writer, 2)
    drawn = judge.write(writer.eval(), memory, draw=True)
    assert (drawn[:, 0] == TOKENIZER.sot_id).all()
    assert (drawn[:, 1:] != TOKENIZER.sot_id).all()
    log_probabilities = judge.log_probabilities(writer, memory, drawn)
    cache = None
    for place in range(drawn.shape[1] - 1):
        logits, cache = writer.step(drawn[:, place], memory, cache)
        logits[:, TOKENIZER.sot_id] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, drawn[:, place + 1, None])[:, 0]
        torch.testing.assert_close(log_probabilities[:, place], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_half_precision_loses_no_gradient(num_samples: int) -> None:
    writer = decoder().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = critic(num_samples).loss(writer, read(writer, 3), torch.tensor([0, 1, 2]))
    loss.backward()
    assert writer.training
    assert all(parameter.grad is not None for parameter in writer.parameters())


NOTHING_ELSE = {"contrastive": 0, "deep_supervision": 0, "self_distillation": 0}


def recipe(objective: dict[str, Any], steps: int, **changes: Any) -> Recipe:
    return tiny_recipe(
        model=ALL_TASKS,
        objective={**NOTHING_ELSE, **objective},
        data={"format": "manifest", "folder": "unused", "vocabulary": "corpus"},
        optimiser={
            "steps": steps,
            "batch_size": 24,
            "learning_rate": 5e-3,
            "clip_learning_rate": 0.0,
            "frozen": FROZEN,
        },
        report={"evaluate_steps": steps, "checkpoint_steps": steps, "log_steps": 1},
        **changes,
    )


def test_a_stage_behind_cross_entropy_raises_the_reward(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, _ = splits
    Trainer(recipe({"captioning": 1.0}, 40), train, train, tmp_path / "words", cpu=True).run()
    stage = recipe({"self_critical": 1.0}, 20, initial=str(tmp_path / "words" / "model"))
    trainer = Trainer(stage, train, train, tmp_path / "critic", cpu=True)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    rewards = [-trainer._train_step()["self_critical"].item() for _ in range(20)]
    assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5])
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"reconstruction", "caption_decoder"}


def test_what_it_cannot_do_without_is_said(splits: tuple[Split, Split], tmp_path: Path) -> None:
    objective = {"self_critical": 1.0}
    with pytest.raises(TrainingError, match="self_critical needs a model with caption_layers"):
        Trainer(tiny_recipe(objective=objective), *splits, tmp_path, cpu=True)
    records = [VideoRecord(record.video, (), questions=record.questions) for record in splits[0].records]
    with pytest.raises(TrainingError, match="self_critical needs captions, and some clips of the data set have none"):
        Trainer(recipe(objective, 2), Split(records, splits[0].cache), splits[1], tmp_path, cpu=True)
    with pytest.raises(TrainingError, match="self_critical_samples is 0; it must be at least 1"):
        tiny_recipe(objective={**objective, "self_critical_samples": 0})
    # It is what `hbi-train caption` asks for; then come the data, and there are none.
    options: dict[str, Any] = {"task": "caption", "restart": False, "workers": 1, "cpu": True}
    with pytest.raises(DataError, match="manifest needs the folder of its annotation files"):
        run_training(recipe(objective, 2), tmp_path, **options)
