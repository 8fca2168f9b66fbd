"""The objective's terms follow their weights; objectives that cannot be."""

from __future__ import annotations

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.objective.losses import (
    contrastive_loss,
    released_kl,
)
from hbi_training.objective.objective import Objective

LEVELS = ("entity", "action", "event")


def test_the_terms_follow_the_weights() -> None:
    similarity = {level: torch.randn(4, 4) for level in LEVELS}
    scale = torch.tensor(3.0)
    every = Objective(deep_supervision=0.5, self_distillation=0.2).similarity_terms(similarity, scale)
    assert set(every) == {f"contrastive_{level}" for level in LEVELS} | {"distillation_action", "distillation_event"}
    torch.testing.assert_close(every["contrastive_event"], 0.5 * contrastive_loss(similarity["event"], scale))
    alone = Objective(deep_supervision=0.0, self_distillation=0.0).similarity_terms(similarity, scale)
    assert list(alone) == ["contrastive_entity"]
    released = Objective(self_distillation=2.0, variant="released").similarity_terms(similarity, scale)
    entity, action = similarity["entity"], similarity["action"]
    expected = 2.0 * (released_kl(action, entity) + released_kl(action.T, entity.T))
    torch.testing.assert_close(released["distillation_action"], expected)


def test_an_objective_that_cannot_be() -> None:
    with pytest.raises(TrainingError, match="variant is 'relased'; known are hbi and released"):
        Objective(variant="relased")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="needs a trained estimator: give objective"):
        Objective(variant="released", banzhaf=1.0)


def test_what_the_terms_need_of_a_model() -> None:
    assert not Objective().needed_tasks
    objective = Objective(banzhaf=1.0, answering=0.5, self_critical=1.0)
    assert objective.needed_tasks == {"banzhaf": "interaction", "answering": "qa", "self_critical": "caption"}
