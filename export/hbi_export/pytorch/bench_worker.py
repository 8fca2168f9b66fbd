"""Measures PyTorch for `hbi-infer bench`, in its own process (see `hbi_infer.worker_process`)."""

from __future__ import annotations

from typing import Any

import torch

from hbi_export.pytorch.engine import TorchDevice, torch_graphs
from hbi_infer.bench.worker import BenchJob, measure_device
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from hbi_infer.worker_process import Answer, Tell
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


def work(job: dict[str, Any], _content: bytes, tell: Tell) -> Answer:
    """Measures a checkpoint's modules, as a job of `hbi_infer.worker_process`."""
    return measure_device(BenchJob.from_document(job), open_checkpoint, tell)
