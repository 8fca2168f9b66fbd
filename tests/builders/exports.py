"""Tiny checkpoints and the bundles that are made of them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from hbi_export.cli import main
from hbi_export.graphs.parity import OutputCheck
from hbi_export.graphs.stored_weights import widen_weights
from hbi_export.precision.quantize import BundlePrecision, quantized_bundle, write_quantized
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.shapes import captions, scenes
from hbi_training.model import hbi as training_model
from hbi_training.weights.checkpoint import Checkpoint, build_model
from hbi_training.weights.rounding import ROUNDED_FROM
from tests.builders.in_process import run_main
from tests.builders.tiny_training import HBI_SECTION

ANSWERS = ("red", "blue", "yes", "no", "two")


def tiny_checkpoint(section: dict[str, Any], seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(0)
    corpus = [text for scene in scenes(0, "test", 20) for text in captions(scene, rng)]
    tokenizer_json = clip_tokenizer_json(corpus)
    torch.manual_seed(seed)
    model = build_model(section, Tokenizer.from_json(tokenizer_json)).eval()
    provenance = {"recipe": {"name": "tiny"}, "seed": seed, "metrics": {"validation/R@1": 12.5}}
    return Checkpoint(model, tokenizer_json, "tiny", "A note.", provenance)


def with_parts(checkpoint: Checkpoint, **parts: Any) -> Checkpoint:
    """The tiny model with further parts; a reconstruction lets something through, as after training."""
    torch.manual_seed(0)
    model = build_model({**HBI_SECTION, **parts}, checkpoint.tokenizer).eval()
    assert isinstance(model, training_model.HBI)
    if model.reconstruction is not None:
        torch.nn.init.normal_(model.reconstruction.gate.weight, std=0.3)
    return replace(checkpoint, model=model)


def two_clips() -> tuple[np.ndarray, np.ndarray]:
    """Noise, of all frames and of two."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    return frames, np.arange(6) < np.array([[6], [2]])


class Exported(NamedTuple):
    """A checkpoint and the bundle that was made of it."""

    checkpoint: Checkpoint
    folder: Path
    checks: list[OutputCheck]


def hbi_export(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, *arguments)


def quantized(source: Bundle, folder: Path, precision: BundlePrecision) -> Bundle:
    assert write_quantized(quantized_bundle(source, precision), source, folder) is None
    return Bundle.load(folder)


def with_weights(source: Bundle, folder: Path, scale: float) -> Bundle:
    """The bundle with noise in each large weight of the video encoder, `scale` times as strong as the weight."""
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(source.graph_bytes("video_encoder"))
    widen_weights(model)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= ROUNDED_FROM:
            values = numpy_helper.to_array(weight)
            noise = scale * values.std() * rng.normal(size=values.shape)
            weight.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), weight.name))
    graphs = {name: source.graph_bytes(name) for name in source.manifest.graphs}
    graphs["video_encoder"] = model.SerializeToString()
    write_bundle(folder, source.manifest, graphs, source.tokenizer_json())
    return Bundle.load(folder)
