"""The estimator network: the released module's numbers, its file, files that are refused."""

from __future__ import annotations

import pickle  # noqa: TID251 - a harmful file is made, to see it refused
from pathlib import Path

import numpy as np
import pytest
import torch

from hbi_infer.errors import TrainingError
from hbi_training.banzhaf.estimator import BanzhafEstimator, from_released, load_estimator, save_estimator
from tests.builders.tensor_files import Harm
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = GOLDEN_FOLDER / "banzhaf_module.npz"

OF_THE_LARGEST = 1e-4  # float32 against float32


def golden(prefix: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name.removeprefix(prefix): torch.from_numpy(arrays[name]) for name in arrays if name.startswith(prefix)}


@pytest.mark.parametrize("size", ["p8", "p64"])
def test_equals_the_released_module(size: str, tmp_path: Path) -> None:
    numbers = golden(f"{size}.")
    weights = {name.removeprefix("w."): tensor for name, tensor in numbers.items() if name.startswith("w.")}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "authors.pt")
    estimator = load_estimator(tmp_path / "authors.pt")
    for given, expected in (("x", "y"), ("x2", "y2")):
        if given not in numbers:
            continue
        # (B, A, T, V) or (B, 1, T, V) -> (B * A, T, V)
        maps, wanted = numbers[given].flatten(0, 1), numbers[expected].flatten(0, -3)
        with torch.no_grad():
            actual = estimator(maps)
        torch.testing.assert_close(actual, wanted, rtol=0, atol=OF_THE_LARGEST * float(wanted.abs().max()))


def test_padding_is_read_as_zero_and_comes_out_as_zero() -> None:
    mask = torch.tensor([[[True, False], [True, False], [False, False]]])
    estimator, cosines = BanzhafEstimator(8), torch.randn(1, 3, 2)
    estimate = estimator(cosines, mask)
    assert not estimate[~mask].any()
    assert torch.equal(estimate, estimator(torch.where(mask, cosines, 7.0), mask))
    assert torch.equal(estimate[mask], estimator(cosines * mask)[mask])


def test_its_file_gives_it_back(tmp_path: Path) -> None:
    estimator = BanzhafEstimator(8)
    save_estimator(estimator, tmp_path / "estimator.safetensors")
    again = load_estimator(tmp_path / "estimator.safetensors")
    x = torch.randn(2, 4, 3)
    assert torch.equal(estimator(x), again(x))


def test_files_that_are_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with (tmp_path / "code.pt").open("wb") as file:
        pickle.dump({"cnn1.weight": Harm(trap)}, file)
    torch.save({"Q": Harm(trap)}, tmp_path / "code_in_zip.pt")
    (tmp_path / "text.pt").write_text("these are not weights\n")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    for name in ("code.pt", "code_in_zip.pt", "text.pt", "empty.pt"):
        with pytest.raises(TrainingError, match="is not a PyTorch file of tensors, or holds more"):
            load_estimator(tmp_path / name)
    assert not trap.exists()
    with pytest.raises(TrainingError, match=r"cannot read .*broken"):
        load_estimator(tmp_path / "broken.safetensors")
    with pytest.raises(TrainingError, match="there is no file"):
        load_estimator(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(TrainingError, match="is not a mapping of names to tensors"):
        load_estimator(tmp_path / "list.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=r"holds no Banzhaf estimator; it has the tensors a"):
        load_estimator(tmp_path / "other.pt")
    state = BanzhafEstimator(8).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name != "query"}, tmp_path / "part.pt")
    with pytest.raises(TrainingError, match=r"Missing key.*query"):
        load_estimator(tmp_path / "part.pt")


def test_released_names() -> None:
    assert set(from_released({"cnn1.weight": torch.ones(1), "bn.running_var": torch.ones(1), "Q": torch.ones(1)})) == {
        "first.weight",
        "query",
    }
