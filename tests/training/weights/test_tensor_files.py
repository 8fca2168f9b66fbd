"""Files of tensors in every wrapping; what holds code is refused and not run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hbi_infer.errors import TrainingError
from hbi_training.weights.tensor_files import load_tensors
from tests.builders.tensor_files import Harm, Tower, same


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("old_format", [False, True])
def test_checkpoints_in_their_wrappings(wrapper: str | None, old_format: bool, tmp_path: Path) -> None:
    state = Tower().state_dict()
    content: Any = {f"module.{name}": tensor for name, tensor in state.items()}
    if wrapper:
        content = {wrapper: content, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(content, tmp_path / "c.bin", _use_new_zipfile_serialization=not old_format)
    assert same(load_tensors(tmp_path / "c.bin"), state)


def test_safetensors_by_any_name(tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in Tower().state_dict().items()}
    save_file(state, tmp_path / "tower.safetensors")
    shutil.copy(tmp_path / "tower.safetensors", tmp_path / "tower.bin")
    for name in ("tower.safetensors", "tower.bin"):
        assert same(load_tensors(tmp_path / name), state)


@pytest.mark.parametrize("old_format", [False, True])
def test_code_is_refused_and_not_run(old_format: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save(
        {"weight": torch.ones(2), "harm": Harm(trap)}, tmp_path / "c.pt", _use_new_zipfile_serialization=not old_format
    )
    with pytest.raises(TrainingError, match=r"was not run \(it asks for posix.system\): give a state dict alone"):
        load_tensors(tmp_path / "c.pt")
    assert not trap.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert trap.exists(), "the trap works"


def test_a_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    call = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    (tmp_path / "c.pt").write_bytes(b"\x80\x04\x95" + len(call).to_bytes(8, "little") + call)
    with pytest.raises(
        TrainingError, match=r"was not run \(it is a pickle of other things: \w[^)]*\): give"
    ) as refused:
        load_tensors(tmp_path / "c.pt")
    assert "weights_only" not in str(refused.value), "nobody is told how to run it"
    assert not trap.exists()
    with pytest.raises(RuntimeError, match="Invalid magic number"):
        torch.load(tmp_path / "c.pt", weights_only=False)
    assert trap.exists(), "the trap works"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.save(Tower().state_dict(), tmp_path / "whole.pt")
    torch.save(Tower().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("whole.pt", "old.pt"):
        content = (tmp_path / name).read_bytes()
        for part in (0.1, 0.5, 0.99):
            (tmp_path / "cut.pt").write_bytes(content[: int(part * len(content))])
            with pytest.raises(TrainingError, match="not a PyTorch file of tensors"):
                load_tensors(tmp_path / "cut.pt")
    (tmp_path / "words.pt").write_text("1. these are not weights\n")
    with pytest.raises(TrainingError, match=r"not a PyTorch file of tensors.*it begins with b'1. these are not'"):
        load_tensors(tmp_path / "words.pt")
    torch.save({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(TrainingError, match="weight has values that are not finite"):
        load_tensors(tmp_path / "nan.pt")
    save_file({"a": torch.ones(9)}, tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-5])
    with pytest.raises(TrainingError, match=r"cannot read .*cut\.safetensors"):
        load_tensors(tmp_path / "cut.safetensors")
    with pytest.raises(TrainingError, match="there is no file"):
        load_tensors(tmp_path)
