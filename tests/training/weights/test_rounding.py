"""Rounded weights are near the model's own, and the model itself stays as it was."""

from __future__ import annotations

import torch
from torch import nn

from hbi_training.weights.rounding import ROUNDED_FROM, rounded


def test_large_weights_are_rounded_within_half_a_step() -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, ROUNDED_FROM // 64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert rounded(model, "float32") is model
    half, whole = rounded(model, "float16"), rounded(model, "int8")
    assert torch.equal(half.weight, model.weight.half().float())
    step = model.weight.abs().amax(1, keepdim=True) / 127
    assert ((whole.weight - model.weight).abs() <= step / 2 + 1e-7).all()
    torch.testing.assert_close(whole.weight / step, (whole.weight / step).round(), rtol=0, atol=1e-3)
    for copy in (half, whole):
        assert torch.equal(copy.bias, model.bias), "small tensors stay"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_channel_of_zeros_stays() -> None:
    model = nn.Linear(64, ROUNDED_FROM // 64)
    nn.init.zeros_(model.weight)
    assert torch.equal(rounded(model, "int8").weight, model.weight)
