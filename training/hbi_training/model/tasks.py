"""The tasks that a model can do, and the error where it cannot do one."""

from __future__ import annotations

from typing import Literal

from hbi_infer.errors import TrainingError

HBITask = Literal["interaction", "rerank", "qa", "caption"]
"""Tasks that need tokens of several levels, or a part of an `HBI` model."""

Task = Literal["retrieve"] | HBITask

NEEDED: dict[HBITask, str] = {
    "interaction": "of kind hbi",
    "rerank": "with reconstruction_layers of at least 1",
    "qa": "of kind hbi with a list of answers, and clips with questions",
    "caption": "with caption_layers of at least 1",
}
"""Part or kind of model that each task needs, in the words of an error message."""


def cannot(task: HBITask, asked_by: str) -> TrainingError:
    """Returns the error for a model that cannot do a task.

    Args:
        task: Task that the model cannot do.
        asked_by: Subject of the message, such as "the objective's answering".
    """
    return TrainingError(f"{asked_by} needs a model {NEEDED[task]}")
