"""Files of tensors in every wrapping are read without torch; what holds code is refused and not run."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.errors import BundleError
from tests.builders.tensor_files import Harm, Tower, same_arrays


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("old_format", [False, True])
def test_checkpoints_in_their_wrappings(wrapper: str | None, old_format: bool, tmp_path: Path) -> None:
    state = Tower().state_dict()
    content: Any = {f"module.{name}": tensor for name, tensor in state.items()}
    if wrapper:
        content = {wrapper: content, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(content, tmp_path / "c.bin", _use_new_zipfile_serialization=not old_format)
    assert same_arrays(read_tensors(tmp_path / "c.bin"), state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_newer_pickles_and_parameters(protocol: int, tmp_path: Path) -> None:
    content = {"a": torch.nn.Parameter(torch.randn(3, 4)), "b": torch.arange(6).reshape(2, 3).T[1:]}
    torch.save(content, tmp_path / "c.pt", pickle_protocol=protocol)
    assert same_arrays(read_tensors(tmp_path / "c.pt"), {name: value.detach() for name, value in content.items()})


def test_safetensors_by_any_name(tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in Tower().state_dict().items()}
    save_file(state, tmp_path / "tower.safetensors")
    shutil.copy(tmp_path / "tower.safetensors", tmp_path / "tower.bin")
    for name in ("tower.safetensors", "tower.bin"):
        assert same_arrays(read_tensors(tmp_path / name), state)


@pytest.mark.parametrize("name", ["c.safetensors", "new.pt", "old.pt"])
def test_bfloat16_becomes_float32(name: str, tmp_path: Path) -> None:
    tensors = {"w": torch.tensor([[1.0, -2.5], [3e38, 1e-40]]).bfloat16()}
    if name == "c.safetensors":
        save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=name == "new.pt")
    assert same_arrays(read_tensors(tmp_path / name), {"w": tensors["w"].float()})


def test_other_kinds_of_numbers_are_refused(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(4).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "c.safetensors")
    torch.save(tensors, tmp_path / "c.pt")
    with pytest.raises(BundleError, match=r"cannot read .*c.safetensors as safetensors"):
        read_tensors(tmp_path / "c.safetensors")
    with pytest.raises(BundleError, match=r"c.pt is not a PyTorch file of tensors"):
        read_tensors(tmp_path / "c.pt")


@pytest.mark.parametrize("old_format", [False, True])
def test_code_is_refused_and_not_run(old_format: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save(
        {"weight": torch.ones(2), "harm": Harm(trap)}, tmp_path / "c.pt", _use_new_zipfile_serialization=not old_format
    )
    with pytest.raises(BundleError, match=r"was not run \(it asks for posix.system\): give a state dict alone"):
        read_tensors(tmp_path / "c.pt")
    assert not trap.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert trap.exists(), "the trap works"


def test_a_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    call = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    (tmp_path / "c.pt").write_bytes(b"\x80\x04\x95" + len(call).to_bytes(8, "little") + call)
    with pytest.raises(BundleError, match=r"was not run \(it asks for os.system\): give"):
        read_tensors(tmp_path / "c.pt")
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
            with pytest.raises(BundleError, match="not a PyTorch file of tensors"):
                read_tensors(tmp_path / "cut.pt")
    (tmp_path / "words.pt").write_text("1. these are not weights\n")
    with pytest.raises(BundleError, match=r"not a PyTorch file of tensors.*it begins with b'1. these are not'"):
        read_tensors(tmp_path / "words.pt")
    torch.save({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(BundleError, match="weight has values that are not finite"):
        read_tensors(tmp_path / "nan.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="not a mapping of names to tensors"):
        read_tensors(tmp_path / "list.pt")
    torch.save({"weight": torch.ones(2), "epoch": 3}, tmp_path / "mixed.pt")
    with pytest.raises(BundleError, match="not a mapping of names to tensors"):
        read_tensors(tmp_path / "mixed.pt")
    save_file({"a": torch.ones(9)}, tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-5])
    with pytest.raises(BundleError, match=r"cannot read .*cut\.safetensors"):
        read_tensors(tmp_path / "cut.safetensors")
    with pytest.raises(BundleError, match="there is no file"):
        read_tensors(tmp_path)


def test_every_cut_and_every_wrong_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for old_format in (False, True):
        file = tmp_path / "c.pt"
        torch.save({"w": torch.ones(3, 2)}, file, _use_new_zipfile_serialization=not old_format)
        content = file.read_bytes()
        for _ in range(300):
            wrong = bytearray(content)
            wrong[rng.integers(len(wrong))] = rng.integers(256)
            file.write_bytes(wrong[: rng.integers(len(wrong) // 2, len(wrong) + 1)])
            with suppress(BundleError):
                assert all(isinstance(array, np.ndarray) for array in read_tensors(file).values())
