"""Weights are of the shape that a configuration says, or an error names them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hbi_infer.convert.weights import Weights, read_weights
from hbi_infer.errors import BundleError


def weights() -> Weights:
    tensors = {
        "layer.weight": np.arange(6, dtype=np.float16).reshape(3, 2),
        "layer.bias": np.ones(3, np.float64),
        "norm.weight": np.ones(2, np.float32),
        "norm.bias": np.zeros(2, np.float32),
        "scale": np.float32([2.5]),
        "ids": np.arange(2),
    }
    return Weights(tensors, "model.safetensors")


def test_layers_and_norms_are_float32() -> None:
    layer, norm = weights().linear("layer", 2, 3), weights().norm("norm", 2, 1e-5)
    assert layer.weight.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert layer.bias is not None
    assert {layer.weight.dtype, layer.bias.dtype} == {np.dtype(np.float32)}
    assert norm.epsilon == 1e-5
    assert weights().linear("layer", 2, 3, bias=False).bias is None
    assert weights().number("scale") == 2.5


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(BundleError, match=r"layer.weight is \(3, 2\) float16, .* must be \(3, 4\): fetch"):
        weights().linear("layer", 4, 3)
    with pytest.raises(BundleError, match=r"ids is \(2,\) int64"):
        weights().take("ids", 2)
    with pytest.raises(BundleError, match=r"model.safetensors has no head.weight, which its configuration asks for"):
        weights().linear("head", 2, 3)


def test_the_best_file_is_read(tmp_path: Path) -> None:
    names = ("best.safetensors", "good.safetensors")
    with pytest.raises(BundleError, match=r"holds no weights; expected best.safetensors or good.safetensors"):
        read_weights(tmp_path, names)
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "good.safetensors")
    assert read_weights(tmp_path, names).number("a") == 1
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "best.safetensors")
    assert read_weights(tmp_path, names).number("a") == 0
