"""Files of tensors become PyTorch's; `tests/infer/convert` has those that are damaged or hold code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.weights.tensor_files import load_tensors
from tests.builders.tensor_files import Harm, Tower, same


def test_a_checkpoint_becomes_tensors_of_the_same_types(tmp_path: Path) -> None:
    state = Tower().state_dict()
    torch.save({"state_dict": state}, tmp_path / "c.pt")
    assert same(load_tensors(tmp_path / "c.pt"), state)


def test_what_cannot_be_read_is_an_error_of_training(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"harm": Harm(trap)}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match=r"asks for posix\.system"):
        load_tensors(tmp_path / "c.pt")
    assert not trap.exists()
    with pytest.raises(TrainingError, match="there is no file"):
        load_tensors(tmp_path)
