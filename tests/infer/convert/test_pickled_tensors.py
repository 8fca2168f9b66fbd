"""TorchScript archives are read without running their code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from hbi_infer.convert.tensor_files import read_tensors
from hbi_infer.errors import BundleError
from tests.builders.tensor_files import Tower, same_arrays


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript itself
@pytest.mark.parametrize("kind", ["traced", "scripted"])
def test_torchscript_archives_are_read_without_their_code(kind: str, tmp_path: Path) -> None:
    tower = Tower().eval()
    archive = torch.jit.trace(tower, torch.randn(2, 4)) if kind == "traced" else torch.jit.script(tower)
    archive.save(tmp_path / "tower.pt")
    assert same_arrays(read_tensors(tmp_path / "tower.pt"), tower.state_dict())
    # What would run, if it ran, is not even needed.
    with zipfile.ZipFile(tmp_path / "tower.pt") as whole, zipfile.ZipFile(tmp_path / "bare.pt", "w") as bare:
        for info in whole.infolist():
            if "/code/" not in info.filename:
                bare.writestr(info.filename, whole.read(info))
    assert same_arrays(read_tensors(tmp_path / "bare.pt"), tower.state_dict())


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
    good = read_tensors(archive_with(tmp_path / "good.pt", tensor_at(1, 3)))
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
        with pytest.raises(BundleError, match="looks like a TorchScript archive and cannot be read as one"):
            read_tensors(archive_with(tmp_path / f"{name}.pt", pickled))
    assert not trap.exists()
    with pytest.raises(BundleError, match="is compressed, which TorchScript does not do"):
        read_tensors(archive_with(tmp_path / "z.pt", tensor_at(1, 3), b"\0" * 16, zipfile.ZIP_DEFLATED))
    # A harmful call among the attributes is passed over, and not made.
    pickled = tensor_at(0, 4)[:-3] + text("harm") + b"cos\nsystem\n(" + text(f"touch {trap}") + b"tRub."
    assert list(read_tensors(archive_with(tmp_path / "call.pt", pickled))) == ["weight"]
    assert not trap.exists()


def test_a_tensor_cannot_be_larger_than_its_numbers(tmp_path: Path) -> None:
    repeated = tensor_at(0, 3).replace(b"(K\x01t\x89", b"(K\x00t\x89").replace(b"(K\x03t", b"(J\xff\xff\xff\x7ft")
    with pytest.raises(BundleError, match="reaches beyond its 4 numbers"):
        read_tensors(archive_with(tmp_path / "bomb.pt", repeated))


def test_modules_that_hold_themselves_come_to_an_end(tmp_path: Path) -> None:
    shared = b"\x80\x02}q\x00"
    for depth in range(1, 60):  # each holds the one before it twice
        before = b"h" + bytes([depth - 1])
        shared += b"}q" + bytes([depth]) + b"(" + text("a") + before + text("b") + before + b"u"
    with pytest.raises(BundleError, match="more than 1,000,000 modules"):
        read_tensors(archive_with(tmp_path / "bomb.pt", shared + b"."))


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt") as whole, zipfile.ZipFile(tmp_path / "big.pt", "w") as big:
        for info in whole.infolist():
            big.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else whole.read(info))
    with pytest.raises(BundleError, match="its numbers are in b'big' order; only little is supported"):
        read_tensors(tmp_path / "big.pt")
