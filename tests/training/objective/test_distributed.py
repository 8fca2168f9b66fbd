"""Rows of all devices are joined, and gradients go back to each device's own rows."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import PIPE, Popen

import torch

from hbi_training.model.token_interaction import Tokens
from hbi_training.objective.distributed import gather, gather_levels

WORKER = """
import sys
import torch
import torch.distributed as dist
from hbi_training.model.token_interaction import Tokens
from hbi_training.objective.distributed import gather, gather_levels

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
own = torch.full((2, 3), float(rank + 1), requires_grad=True)
everyone = gather(own)
(everyone * torch.arange(1.0, 5.0)[:, None] * (rank + 1)).sum().backward()
short = Tokens(torch.ones(1, 2 + rank, 3), torch.ones(1, 2 + rank), torch.ones(1, 2 + rank, dtype=torch.bool))
joined = gather_levels({"entity": short})["entity"]
print(everyone[:, 0].tolist(), own.grad[:, 0].tolist(), joined.mask.tolist(), joined.tokens.shape[1])
dist.destroy_process_group()
"""


def test_two_devices_see_all_rows_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    workers = [Popen([sys.executable, "-c", WORKER, tmp_path / "meet", str(rank)], stdout=PIPE) for rank in range(2)]
    mask = [[True, True, False], [True, True, True]]
    # Each rank multiplies row n by n * (rank + 1), and the gradients of both ranks are summed.
    for worker, gradient in zip(workers, ([3.0, 6.0], [9.0, 12.0]), strict=True):
        said, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert said.decode().strip() == f"[1.0, 1.0, 2.0, 2.0] {gradient} {mask} 3"


def test_without_other_devices_nothing_is_joined() -> None:
    tensor = torch.ones(2, 3)
    levels = {"entity": Tokens(tensor[..., None], tensor, tensor > 0)}
    assert gather(tensor) is tensor
    assert gather_levels(levels) is levels
