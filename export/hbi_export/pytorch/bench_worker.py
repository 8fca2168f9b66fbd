"""Measures PyTorch for `hbi-infer bench`, in a process of its own: `python -m hbi_export.pytorch.bench_worker JOB`."""

from __future__ import annotations

import torch

from hbi_export.pytorch.engine import TorchDevice, torch_graphs
from hbi_infer.bench.worker import BenchJob, serve
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from hbi_training.weights.checkpoint import load_checkpoint


def open_checkpoint(job: BenchJob) -> TokenModel:
    """Opens the modules of the checkpoint in place of the bundle's graphs.

    Raises:
        TrainingError: There is no checkpoint.
        DeviceError: PyTorch cannot run so here.
    """
    how = TorchDevice.named(job.device)
    assert job.checkpoint is not None
    torch.set_num_threads(job.num_threads)
    bundle = Bundle.load(job.bundle)
    return TokenModel(
        bundle, open_graph=torch_graphs(load_checkpoint(job.checkpoint), dict(bundle.manifest.graphs), how)
    )


if __name__ == "__main__":
    serve(open_checkpoint)
