"""Muon: momentum whose updates of weight matrices are orthogonalised (Jordan et al. 2024).

PyTorch's own Muon always computes in bfloat16. Processors without native bfloat16 then take ten seconds for a step of
the embedded model, and half a second in the weights' own precision; on those with it, bfloat16 takes a quarter of the
time. So here the precision is an argument.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that moves singular values towards 1; Jordan et al. chose them for few iterations."""
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Moves the singular values of matrices (N, R, C) near 1 by Newton-Schulz iterations: (N, R, C)."""
    if matrices.shape[1] > matrices.shape[2]:  # products along the shorter side cost less
        return orthogonalise(matrices.mT).mT
    linear, cubic, quintic = COEFFICIENTS
    # The Frobenius norm bounds the largest singular value, which must be at most 1.
    result = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), result, beta=linear)
    return result


class Muon(torch.optim.Optimizer):
    """Optimiser with orthogonalised Nesterov momentum and decoupled weight decay.

    A step is scaled to the size of AdamW's (Liu et al. 2025, 0.2 times the root of the longer side), so that learning
    rates and decays of AdamW mean the same here.

    Args:
        params: Matrices, or groups of them with their own `lr` and `weight_decay`.
        lr: Learning rate.
        weight_decay: Part by which a weight shrinks in a step, divided by the learning rate.
        momentum: Momentum of the gradients' running mean.
        dtype: Precision of the orthogonalisation; None for that of the weights.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes one step; matrices of one shape are orthogonalised together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            directions: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                # The scale of the running mean does not matter, for the direction is normalised.
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(state["momentum"], group["momentum"])
                directions[parameter.shape].append((parameter, direction))
            for shape, pairs in directions.items():
                updates = orthogonalise(torch.stack([direction for _, direction in pairs]).to(dtype=self.dtype))
                step = group["lr"] * 0.2 * max(shape) ** 0.5
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=step)
        return loss
