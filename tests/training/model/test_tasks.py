"""Models say what they can do, and refuse what they cannot."""

from __future__ import annotations

from typing import Any

import pytest

from hbi_infer.errors import TrainingError
from hbi_training.model.tasks import NEEDED, HBITask, Task
from hbi_training.weights.checkpoint import build_model
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, with_vocabulary_size

PARTS: dict[HBITask, dict[str, Any]] = {
    "rerank": {"reconstruction_layers": 1},
    "qa": {"answers": ["red", "blue"]},
    "caption": {"caption_layers": 1},
}


def test_a_model_can_do_what_its_parts_are_for() -> None:
    section = with_vocabulary_size(HBI_SECTION, 99)
    always: set[Task] = {"retrieve", "interaction"}
    assert build_model(section).tasks == always
    for task, part in PARTS.items():
        model = build_model({**section, **part})
        assert model.tasks == always | {task}
        assert model.require(task, "a test") is model
    assert build_model(with_vocabulary_size(MEAN_POOLED_SECTION, 99)).tasks == {"retrieve"}


@pytest.mark.parametrize("section", [HBI_SECTION, MEAN_POOLED_SECTION])
def test_the_error_says_who_asked_and_what_is_missing(section: dict[str, Any]) -> None:
    model = build_model(with_vocabulary_size(section, 99))
    for task in NEEDED.keys() - model.tasks:
        with pytest.raises(TrainingError, match=f"^a test needs a model {NEEDED[task]}$"):
            model.require(task, "a test")
