"""The answer head: padding, gradients, and the released variant; tests/export/test_upstream.py has its numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.model.answer_head import AnswerHead
from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens

WIDTH, NUM_ANSWERS = 8, 5


def head(*, released: bool = False, dropout: float = 0.0) -> AnswerHead:
    torch.manual_seed(0)
    return AnswerHead(
        width=WIDTH,
        projection_width=6,
        hidden_width=12,
        num_answers=NUM_ANSWERS,
        dropout=dropout,
        released=released,
    )


def levels(batch: int, counts: tuple[int, ...], real: int, padding: int = 0, fill: float = 0.0) -> dict[str, Tokens]:
    """Random tokens, `real` of them real at the first level, and `padding` more with any content."""
    generator = torch.Generator().manual_seed(sum(counts))
    made = {}
    for level, count in zip(LEVELS, counts, strict=True):
        tokens = torch.randn(batch, count, WIDTH, generator=generator)
        mask = torch.arange(count).expand(batch, -1) < (real if level == LEVELS[0] else count)
        tokens = torch.cat([tokens, torch.full((batch, padding, WIDTH), fill)], dim=1)
        mask = torch.cat([mask, torch.zeros(batch, padding, dtype=torch.bool)], dim=1)
        made[level] = Tokens(tokens, mask.float(), mask)
    return made


@settings(deadline=None, max_examples=20)
@given(real=st.integers(1, 6), padding=st.integers(1, 4), fill=st.floats(-9, 9))
def test_padding_changes_no_answer(real: int, padding: int, fill: float) -> None:
    answers = head()
    video = levels(2, (3, 2, 1), 3)
    with torch.no_grad():
        plain = answers(levels(2, (6, 2, 1), real), video)
        padded = answers(levels(2, (6, 2, 1), real, padding, fill), video)
    for level in LEVELS:
        assert plain[level].shape == (2, NUM_ANSWERS)
        torch.testing.assert_close(padded[level], plain[level], rtol=0, atol=1e-5)


def test_padding_takes_its_share_in_the_released_variant() -> None:
    answers = head(released=True)
    video = levels(2, (3, 2, 1), 3)
    with torch.no_grad():
        plain, padded = (answers(levels(2, (6, 2, 1), 6, padding, 1.0), video) for padding in (0, 3))
    assert (plain["entity"] - padded["entity"]).abs().max() > 1e-3
    with torch.no_grad():
        sound = head()(levels(2, (6, 2, 1), 6), video)
    for level in LEVELS:  # without padding there is no difference
        torch.testing.assert_close(plain[level], sound[level], rtol=0, atol=1e-6)


def test_levels_count_by_their_rates() -> None:
    answers = head()
    logits = {level: torch.full((1, NUM_ANSWERS), float(number)) for number, level in enumerate(LEVELS, 1)}
    assert answers.combine(logits).tolist()[0] == pytest.approx([0.4 + 2 * 0.4 + 3 * 0.2] * NUM_ANSWERS)


def test_it_learns_which_answer_belongs_to_which_question() -> None:
    answers = head(dropout=0.1)
    text, video = levels(NUM_ANSWERS, (6, 2, 1), 4, 1), levels(NUM_ANSWERS, (3, 2, 1), 2)
    labels = torch.arange(NUM_ANSWERS)
    optimiser = torch.optim.Adam(answers.parameters(), 1e-2)
    for _ in range(60):
        losses = [torch.nn.functional.cross_entropy(part, labels) for part in answers(text, video).values()]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in answers.parameters())
    with torch.no_grad():
        assert answers.eval().combine(answers(text, video)).argmax(1).tolist() == labels.tolist()
