"""Models to compare: a bundle on a device, or a checkpoint in PyTorch; either is a set of named graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hbi_engines.engine import Arrays, Runnable
from hbi_engines.registry import check_device
from hbi_export.graphs.modules import GraphModule, graph_module, graph_names
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.bundle_files import MANIFEST
from hbi_infer.model.graph_names import clip_graph, missing_graphs
from hbi_infer.model.token_model import load_graph
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import FrameSampling
from hbi_infer.tokens.scoring import Scoring
from hbi_training.weights.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class ComparedModel:
    """A model, whatever runs it.

    Attributes:
        name: Name of the bundle or checkpoint.
        device: A device of `hbi_engines.registry.RUNTIMES`, or "eager".
        graphs: Names of its graphs.
        open_graph: Makes one of them ready to run.
        scoring: How it compares tokens.
        sampling: Sampling of frames.
        tokenizer_json: Text of the tokenizer's file.
        max_words: Largest number of tokens of a text.
        answers: Answers that the logits of the answerer stand for.
        precisions: Precisions of its graphs, as in the manifest.
    """

    name: str
    device: str
    graphs: frozenset[str]
    open_graph: Callable[[str], Runnable]
    scoring: Scoring
    sampling: FrameSampling
    tokenizer_json: str
    max_words: int
    answers: tuple[str, ...]
    precisions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} on {self.device}"

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of its texts."""
        return Tokenizer.from_json(self.tokenizer_json)

    @property
    def clip_graph(self) -> str:
        """Name of the graph that gives the tokens of clips."""
        return clip_graph(self.graphs)

    def can(self, task: str) -> bool:
        """Returns whether it has the graphs of a task."""
        return not missing_graphs(task, self.graphs)


def compared_bundle(bundle: Bundle, device: str, *, name: str = "") -> ComparedModel:
    """Takes a bundle on a device.

    Args:
        bundle: The bundle.
        device: A device of `hbi_engines.registry.RUNTIMES`.
        name: Its name in reports; by default its path.

    Raises:
        DeviceError: The device is unknown or cannot run here.
    """
    check_device(device)
    manifest = bundle.manifest
    return ComparedModel(
        name=name or str(bundle.path),
        device=device,
        graphs=frozenset(manifest.graphs),
        open_graph=partial(load_graph, bundle, device=device),
        scoring=manifest.scoring,
        sampling=manifest.sampling,
        tokenizer_json=bundle.tokenizer_json(),
        max_words=manifest.max_words,
        answers=manifest.answers,
        precisions=frozenset(spec.precision for spec in manifest.graphs.values()),
    )


def compared_checkpoint(checkpoint: Checkpoint, *, name: str = "") -> ComparedModel:
    """Takes a checkpoint in PyTorch, in float32 on the processor."""
    model = checkpoint.model
    return ComparedModel(
        name=name or checkpoint.name,
        device="eager",
        graphs=frozenset(graph_names(model)),
        open_graph=lambda graph: EagerGraph(graph_module(checkpoint, graph)),
        scoring=Scoring(model.level_rates, model.config.padded_partner),
        sampling=model.config.sampling,
        tokenizer_json=checkpoint.tokenizer_json,
        max_words=model.config.max_words,
        answers=model.config.answers,
        precisions=frozenset({"float32"}),
    )


def model_at(path: Path | str, device: str) -> ComparedModel:
    """Takes the bundle at a path on a device, or the checkpoint there.

    Raises:
        ExportError: There is neither.
    """
    path = Path(path)
    if (path / "config.json").is_file() and not (path / MANIFEST).exists():
        return compared_checkpoint(load_checkpoint(path), name=str(path))
    if not path.exists():
        raise ExportError(f"there is nothing at {path}: give a bundle, or a checkpoint, the folder runs/NAME/model")
    return compared_bundle(Bundle.load(path), device)


class EagerGraph:
    """A module that runs as its graph does."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Computes the graph's outputs (B, ...) from its inputs (B, ...)."""
        names = self._module.input_names
        with torch.inference_mode():
            made = self._module(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in names))
        return {name: tensor.numpy() for name, tensor in made.items()}
