"""Files of tensors: PyTorch's, safetensors and TorchScript archives, and that nothing in them is ever run."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hbi_infer.errors import TrainingError
from hbi_training.weights.tensor_files import load_tensors


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.ln_1(x))


class Tower(nn.Module):
    """Modules in modules, half precision, a transposed parameter, a buffer: all that CLIP's own archives have."""

    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(Block(), Block())
        self.proj = nn.Parameter(torch.randn(4, 3).half())
        self.turned = nn.Parameter(torch.randn(3, 4).T)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return (self.resblocks(x) @ self.proj.float() + self.turned.sum()) * self.scale + self.input_resolution


def same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript itself
@pytest.mark.parametrize("kind", ["traced", "scripted"])
def test_torchscript_archives_are_read_without_their_code(kind: str, tmp_path: Path) -> None:
    tower = Tower().eval()
    archive = torch.jit.trace(tower, torch.randn(2, 4)) if kind == "traced" else torch.jit.script(tower)
    archive.save(tmp_path / "tower.pt")
    assert same(load_tensors(tmp_path / "tower.pt"), tower.state_dict())
    # What would run, if it ran, is not even needed.
    with zipfile.ZipFile(tmp_path / "tower.pt") as whole, zipfile.ZipFile(tmp_path / "bare.pt", "w") as bare:
        for info in whole.infolist():
            if "/code/" not in info.filename:
                bare.writestr(info.filename, whole.read(info))
    assert same(load_tensors(tmp_path / "bare.pt"), tower.state_dict())


def archive_with(path: Path, pickled: bytes, storage: bytes = b"\0" * 16, method: int = zipfile.ZIP_STORED) -> Path:
    """A TorchScript archive with this pickle and one record of numbers."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {"constants.pkl": b"", "data.pkl": pickled, "data/0": storage}.items():
            archive.writestr(f"tower/{name}", content)
    return path


def text(words: str) -> bytes:
    """A pickled string."""
    return b"X" + len(words).to_bytes(4, "little") + words.encode()


def tensor_at(offset: int, size: int) -> bytes:
    """The pickle of a module with one tensor (size,) in a storage of four float32."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    place = bytes([ord("K"), offset]) + b"(" + bytes([ord("K"), size]) + b"t(K\x01t\x89}"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"tR"
    return b"\x80\x02c__torch__\nTower\n)\x81}(" + text("weight") + tensor + b"ub."


def test_archives_that_lie_are_refused(tmp_path: Path) -> None:
    good = load_tensors(archive_with(tmp_path / "good.pt", tensor_at(1, 3)))
    assert good["weight"].tolist() == [0, 0, 0]
    trap = tmp_path / "trap"
    bad = {
        "beyond": tensor_at(2, 3),  # reaches over the end of its record
        "harm": b"\x80\x02cos\nsystem\n(" + text(f"touch {trap}") + b"tR.",
        "cut": tensor_at(1, 3)[:-20],
        "empty": b"",
        "words": b"hello",
    }
    for name, pickled in bad.items():
        with pytest.raises(TrainingError, match="looks like a TorchScript archive and cannot be read as one"):
            load_tensors(archive_with(tmp_path / f"{name}.pt", pickled))
    assert not trap.exists()
    with pytest.raises(TrainingError, match="is compressed, which TorchScript does not do"):
        load_tensors(archive_with(tmp_path / "z.pt", tensor_at(1, 3), b"\0" * 16, zipfile.ZIP_DEFLATED))
    # A harmful call among the attributes is passed over, and not made.
    pickled = tensor_at(0, 4)[:-3] + text("harm") + b"cos\nsystem\n(" + text(f"touch {trap}") + b"tRub."
    assert list(load_tensors(archive_with(tmp_path / "call.pt", pickled))) == ["weight"]
    assert not trap.exists()


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


class Harm:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


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
