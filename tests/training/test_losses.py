"""The objective's terms against the released numbers and against formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hbi_training.losses import RetrievalObjective, contrastive_loss, distillation_loss, released_kl

GOLDEN = Path(__file__).parent.parent / "golden" / "loss_functions.npz"
TOLERANCE = 1e-5  # float32, scalars of order 1
LEVELS = ("entity", "action", "event")


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_contrastive_loss_is_the_released_one(golden: dict[str, torch.Tensor]) -> None:
    expected = 0.5 * (golden["crossen_a"] + golden["crossen_aT"])
    torch.testing.assert_close(contrastive_loss(golden["a"], torch.tensor(1.0)), expected, rtol=0, atol=TOLERANCE)


def test_released_kl(golden: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(released_kl(golden["a"], golden["b"]), golden["kl_ab"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(released_kl(golden["p"], golden["q"]), golden["kl_pq"], rtol=0, atol=TOLERANCE)
    axes_reversed = released_kl(golden["p"].permute(2, 1, 0), golden["q"].permute(2, 1, 0))
    torch.testing.assert_close(axes_reversed, golden["kl_pq_T"], rtol=0, atol=TOLERANCE)


def test_distillation_is_zero_only_for_the_teacher_and_teaches_only_the_student() -> None:
    teacher = torch.randn(5, 5, requires_grad=True)
    student = torch.randn(5, 5, requires_grad=True)
    scale = torch.tensor(10.0)
    assert float(distillation_loss(teacher, teacher, scale).detach()) == pytest.approx(0, abs=1e-6)
    loss = distillation_loss(student, teacher, scale)
    assert loss > 0
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


def test_hard_negatives_make_the_videos_side_harder() -> None:
    similarity, scale = torch.eye(4), torch.tensor(5.0)
    plain = contrastive_loss(similarity, scale)
    easy = contrastive_loss(similarity, scale, torch.full((4, 2), -1.0))
    hard = contrastive_loss(similarity, scale, torch.full((4, 2), 0.9))
    assert plain < easy < hard


def test_the_terms_follow_the_weights() -> None:
    similarity = {level: torch.randn(4, 4) for level in LEVELS}
    scale = torch.tensor(3.0)
    every = RetrievalObjective(deep_supervision=0.5, self_distillation=0.2).terms(similarity, scale)
    assert set(every) == {f"contrastive_{level}" for level in LEVELS} | {"distillation_action", "distillation_event"}
    torch.testing.assert_close(every["contrastive_event"], 0.5 * contrastive_loss(similarity["event"], scale))
    alone = RetrievalObjective(deep_supervision=0.0, self_distillation=0.0).terms(similarity, scale)
    assert list(alone) == ["contrastive_entity"]
    released = RetrievalObjective(self_distillation=2.0, released_distillation=True).terms(similarity, scale)
    entity, action = similarity["entity"], similarity["action"]
    expected = 2.0 * (released_kl(action, entity) + released_kl(action.T, entity.T))
    torch.testing.assert_close(released["distillation_action"], expected)
