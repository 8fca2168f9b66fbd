"""What is compared: a bundle on a device, or a checkpoint that PyTorch runs; either is a set of named graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hbi_engines.engine import Arrays, Runnable
from hbi_engines.registry import check_device
from hbi_export.graphs.modules import graph_modules
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import MANIFEST, Bundle
from hbi_infer.model.manifest import TASK_GRAPHS
from hbi_infer.model.token_model import load_graph
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import FrameSampling
from hbi_training.weights.checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True)
class Side:
    """A model, whatever runs it.

    Attributes:
        name: Of the bundle or checkpoint.
        device: As in `hbi_engines.registry.RUNTIMES`, or "eager".
        graphs: The names of its graphs.
        open_graph: Makes one of them ready to run.
        rates: Level name -> what its similarity is multiplied with in the score.
        padded_partner: As in the manifest.
        sampling: How videos become frames.
        tokenizer_json: The tokenizer's file.
        max_words: The most tokens of a text.
        answers: What the logits of the answerer stand for.
        precisions: Of its graphs, as in the manifest.
    """

    name: str
    device: str
    graphs: frozenset[str]
    open_graph: Callable[[str], Runnable]
    rates: Mapping[str, float]
    padded_partner: Any
    sampling: FrameSampling
    tokenizer_json: str
    max_words: int
    answers: tuple[str, ...]
    precisions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} on {self.device}"

    @property
    def tokenizer(self) -> Tokenizer:
        """Cuts the texts."""
        return Tokenizer.from_json(self.tokenizer_json)

    def can(self, task: str) -> bool:
        """Whether it has the graphs of a task."""
        return self.graphs.issuperset(TASK_GRAPHS[task])


def bundle_side(bundle: Bundle, device: str, *, name: str = "") -> Side:
    """A bundle on a device.

    Args:
        bundle: Read.
        device: As in `hbi_engines.registry.RUNTIMES`.
        name: What to call it; by default its path.

    Raises:
        DeviceError: The device is unknown or cannot run here.
    """
    check_device(device)
    manifest = bundle.manifest
    return Side(
        name=name or str(bundle.path),
        device=device,
        graphs=frozenset(manifest.graphs),
        open_graph=partial(load_graph, bundle, device=device),
        rates={level.name: level.rate for level in manifest.levels},
        padded_partner=manifest.padded_partner,
        sampling=manifest.sampling,
        tokenizer_json=bundle.tokenizer_json(),
        max_words=manifest.max_words,
        answers=manifest.answers,
        precisions=frozenset(spec.precision for spec in manifest.graphs.values()),
    )


def checkpoint_side(checkpoint: Checkpoint, *, name: str = "") -> Side:
    """A checkpoint in PyTorch, in float32 on the processor."""
    model = checkpoint.model
    modules = graph_modules(model, checkpoint.tokenizer.sot_id)
    return Side(
        name=name or checkpoint.name,
        device="eager",
        graphs=frozenset(modules),
        open_graph=lambda graph: EagerGraph(modules[graph]),
        rates=model.level_rates,
        padded_partner=getattr(model.config, "padded_partner", "ignore"),
        sampling=model.config.sampling,
        tokenizer_json=checkpoint.tokenizer_json,
        max_words=model.config.max_words,
        answers=getattr(model.config, "answers", ()),
        precisions=frozenset({"float32"}),
    )


def side_at(path: Path, device: str) -> Side:
    """A bundle on a device, or a checkpoint, whichever there is at a path.

    Raises:
        ExportError: There is neither.
    """
    if (path / "config.json").is_file() and not (path / MANIFEST).exists():
        return checkpoint_side(load_checkpoint(path), name=str(path))
    if not path.exists():
        raise ExportError(f"there is nothing at {path}: give a bundle, or a checkpoint, the folder runs/NAME/model")
    return bundle_side(Bundle.load(path), device)


class EagerGraph:
    """A module with the names that its graph has."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """What the graph would give."""
        names: tuple[str, ...] = self._module.input_names  # type: ignore[assignment] # every graph's module has them
        with torch.inference_mode():
            made = self._module(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in names))
        return {name: tensor.numpy() for name, tensor in made.items()}
