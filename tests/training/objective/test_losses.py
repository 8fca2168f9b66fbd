"""The loss terms against the released code's numbers and against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbi_training.banzhaf.estimator import BanzhafEstimator, from_released
from hbi_training.banzhaf.exact import banzhaf_interaction
from hbi_training.model.token_interaction import Tokens
from hbi_training.objective.losses import (
    alignment_loss,
    contrastive_loss,
    distillation_loss,
    entropy_shortfall,
    mean_squared_error,
    pair_contrastive_loss,
    released_alignment_loss,
    released_kl,
)
from tests.golden import golden as read_golden
from tests.golden import tensors
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = GOLDEN_FOLDER / "loss_functions.npz"

TOLERANCE = 1e-5  # float32, scalars of order 1


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


def test_the_released_alignment_and_error(golden: dict[str, torch.Tensor]) -> None:
    expected = golden["kl_pq"] + golden["kl_pq_T"]
    actual = released_alignment_loss(golden["p"], golden["q"])
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)
    everything = torch.ones_like(golden["p"], dtype=torch.bool)
    actual = mean_squared_error(golden["p"], golden["q"], everything)
    torch.testing.assert_close(actual, golden["mse_pq"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("padding", [0.0, 0.5])
def test_the_released_alignment_of_a_padded_batch(padding: float) -> None:
    """The estimators read cosines of 0 at padding, whatever stands there."""
    batch = {name: torch.from_numpy(array) for name, array in read_golden("train_alignment.npz").items()}
    mask = batch["text_mask"].bool()[:, :, None] & batch["video_mask"].bool()[:, None, :]
    assert 0 < mask.float().mean() < 0.6
    estimates = {}
    for name, released in (("student", "banzhafmodel."), ("teacher", "banzhafteacher.")):
        weights = from_released(tensors(read_golden("retrieval_tiny_weights.npz"), released))
        estimator = BanzhafEstimator(len(weights["query"]))
        estimator.load_state_dict(weights)
        cosines = batch["entity.diag_logits"].masked_fill(~mask, padding)
        estimates[name] = estimator(cosines, mask).detach()
        largest = float(batch[f"entity.{name}"].abs().max())
        torch.testing.assert_close(estimates[name], batch[f"entity.{name}"], rtol=0, atol=1e-5 * largest)
    expected = batch["entity.kl_lastdim"] + batch["entity.kl_T"]
    torch.testing.assert_close(released_alignment_loss(**estimates), expected, rtol=0, atol=1e-6)


def test_pairs_against_a_few_partners_are_the_whole_matrix_when_the_partners_are_all() -> None:
    similarity, scale = torch.randn(4, 4), torch.tensor(3.0)
    rows = torch.arange(4)
    shifted = [similarity[(rows + s) % 4, rows] for s in range(1, 4)]
    none = torch.empty(4, 0)
    actual = pair_contrastive_loss(similarity.diagonal(), shifted, scale, none)
    torch.testing.assert_close(actual, contrastive_loss(similarity, scale))
    hard = torch.randn(4, 2)
    actual = pair_contrastive_loss(similarity.diagonal(), shifted, scale, hard)
    torch.testing.assert_close(actual, contrastive_loss(similarity, scale, hard))


def ragged_pair(seed: int = 0) -> tuple[torch.Tensor, Tokens, Tokens]:
    """Cosines (3, 5, 4), and the words' and frames' weights and masks."""
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for size, lengths in ((5, [5, 3, 1]), (4, [4, 1, 2])):
        mask = torch.arange(size) < torch.tensor(lengths)[:, None]
        weights = torch.rand(3, size, generator=generator).masked_fill(~mask, 0)
        sides.append(Tokens(torch.empty(3, size, 0), weights / weights.sum(-1, keepdim=True), mask))
    return torch.rand(3, 5, 4, generator=generator) * 2 - 1, sides[0], sides[1]


def test_alignment_by_the_formula() -> None:
    similarity, text, video = ragged_pair()
    target = banzhaf_interaction(similarity, text.weights, video.weights, text.mask, video.mask)
    expected = 0.0
    for b in range(3):
        words, frames = np.flatnonzero(text.mask[b]), np.flatnonzero(video.mask[b])
        cosines, wanted = (part[b].numpy()[np.ix_(words, frames)].astype(np.float64) for part in (similarity, target))
        for own, other, weights in (
            (cosines, wanted, text.weights[b].numpy()[words]),
            (cosines.T, wanted.T, video.weights[b].numpy()[frames]),
        ):
            for row, row_target, weight in zip(own, other, weights, strict=True):
                p = np.exp(row_target / np.abs(row_target).max() / 0.2)
                q = np.exp(row / 0.2)
                p, q = p / p.sum(), q / q.sum()
                expected += weight * float((p * np.log(p / q)).sum()) / 6
    assert float(alignment_loss(similarity, target, text, video, 0.2)) == pytest.approx(expected, rel=1e-4)


def test_alignment_teaches_the_similarities_only_and_is_zero_when_they_follow() -> None:
    similarity, text, video = ragged_pair()
    similarity.requires_grad_()
    target = torch.rand(3, 5, 4, requires_grad=True)
    alignment_loss(similarity, target, text, video, 0.1).backward()
    assert target.grad is None
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()
    real = text.mask[:, :, None] & video.mask[:, None, :]
    assert not similarity.grad[~real].any()
    # A target whose rows and columns all have a largest entry of 1 is met by cosines that equal it.
    met = torch.eye(4)[None]
    everything = Tokens(torch.empty(1, 4, 0), torch.full((1, 4), 0.25), torch.ones(1, 4, dtype=torch.bool))
    assert float(alignment_loss(met, met, everything, everything, 0.1)) == pytest.approx(0, abs=1e-6)


def test_weights_that_gather_fall_short_of_the_floor_of_entropy() -> None:
    def tokens(*weights: float) -> Tokens:
        values = torch.tensor([weights])
        return Tokens(torch.zeros(1, len(weights), 2), values, values > 0)

    assert float(entropy_shortfall(tokens(0.25, 0.25, 0.25, 0.25), 0.9)) == 0
    assert float(entropy_shortfall(tokens(0.5, 0.5, 0.0), 0.9)) == 0, "padding counts for nothing"
    assert float(entropy_shortfall(tokens(1.0), 0.9)) == 0
    assert float(entropy_shortfall(tokens(1.0, 1e-30), 0.9)) == pytest.approx(0.9)
    logits = torch.tensor([[3.0, 0.0, 0.0, float("-inf")]], requires_grad=True)
    weights = logits.softmax(-1)
    entropy_shortfall(Tokens(torch.zeros(1, 4, 2), weights, weights > 0), 0.9).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0 > logits.grad[0, 1], "descent evens the weights out"
    assert logits.grad[0, 3] == 0, "padding takes no part"
