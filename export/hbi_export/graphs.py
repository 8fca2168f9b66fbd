"""The encoders of a model as ONNX graphs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from hbi_training.checkpoint import Model
from hbi_training.token_interaction import Tokens

OPSET = 20
HALVED_FROM = 1024  # elements; small tensors are not worth a cast
Arrays = dict[str, npt.NDArray[np.generic]]


class VideoEncoderGraph(nn.Module):
    """frames (B, F, H, W, 3) uint8, frame_mask (B, F) bool -> tokens and weights of each level."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        """Level by level: (B, V, D) and (B, V), float32, and the slots of the level below, int64."""
        return flat(self.encode(frames, frame_mask))

    def encode(self, frames: Tensor, frame_mask: Tensor) -> dict[str, Tokens]:
        """The same, by name."""
        return self.model.encode_video(frames, frame_mask)


class TextEncoderGraph(nn.Module):
    """token_ids (B, T) int64, token_mask (B, T) bool -> tokens and weights of each level."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> tuple[Tensor, ...]:
        """Level by level: (B, T', D) and (B, T'), float32, and the slots of the level below, int64."""
        return flat(self.encode(token_ids, token_mask))

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> dict[str, Tokens]:
        """The same, by name."""
        return self.model.encode_text(token_ids, token_mask)


def flat(levels: dict[str, Tokens]) -> tuple[Tensor, ...]:
    """Tokens, weights and slots of the levels in a row; masks go without saying, for padding has weight 0."""
    parts: list[Tensor] = []
    for tokens, weights, _, slots in levels.values():
        parts += [tokens.float(), weights.float()] + ([] if slots is None else [slots])
    return tuple(parts)


def output_names(levels: dict[str, Tokens]) -> tuple[str, ...]:
    """The names of what `flat` gives."""
    names: list[str] = []
    for level, tokens in levels.items():
        names += [f"{level}_tokens", f"{level}_weights"] + ([] if tokens.slots is None else [f"{level}_slots"])
    return tuple(names)


@dataclass(frozen=True)
class TracedGraph:
    """A graph and what made it.

    Attributes:
        module: The eager original.
        content: The serialised ONNX model.
        input_names: In the order of the module's arguments.
        output_names: In the order of its results.
    """

    module: nn.Module
    content: bytes
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def eager(self, inputs: Arrays) -> Arrays:
        """What the module itself computes for the graph's inputs."""
        with torch.inference_mode():
            results = self.module(*(torch.from_numpy(inputs[name]) for name in self.input_names))
        return {name: result.numpy() for name, result in zip(self.output_names, results, strict=True)}


def trace_video_encoder(model: Model, *, half_weights: bool = False) -> TracedGraph:
    """Traces `encode_video` with a dynamic batch.

    Args:
        model: On the CPU, in evaluation mode.
        half_weights: Store weights as float16 and compute in float32: half the size, the same speed.
    """
    sampling = model.config.sampling
    size = sampling.image_size
    frames = torch.zeros(2, sampling.max_frames, size, size, 3, dtype=torch.uint8)
    mask = torch.ones(2, sampling.max_frames, dtype=torch.bool)
    batch = Dim("batch", min=1, max=4096)
    shapes = {"frames": {0: batch}, "frame_mask": {0: batch}}
    return _trace(VideoEncoderGraph(model), {"frames": frames, "frame_mask": mask}, shapes, half_weights)


def trace_text_encoder(model: Model, *, half_weights: bool = False) -> TracedGraph:
    """Traces `encode_text` with a dynamic batch and a dynamic length of text, at most the model's `max_words`."""
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.ones(2, 8, dtype=torch.bool)
    batch = Dim("batch", min=1, max=4096)
    length = Dim("text_length", min=2, max=model.config.max_words)
    shapes = {"token_ids": {0: batch, 1: length}, "token_mask": {0: batch, 1: length}}
    return _trace(TextEncoderGraph(model), {"token_ids": ids, "token_mask": mask}, shapes, half_weights)


def _trace(
    module: VideoEncoderGraph | TextEncoderGraph,
    inputs: dict[str, Tensor],
    dynamic_shapes: dict[str, dict[int, Dim]],
    half_weights: bool,
) -> TracedGraph:
    module.eval()
    with torch.no_grad():
        outputs = output_names(module.encode(*inputs.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    strip_notes(proto)
    if half_weights:
        store_weights_as_half(proto)
    onnx.checker.check_model(proto, full_check=True)
    return TracedGraph(module, proto.SerializeToString(deterministic=True), tuple(inputs), outputs)


def strip_notes(proto: onnx.ModelProto) -> None:
    """Drops what the exporter notes of its own source at every node: paths of this machine, and a third of the size."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for weight in proto.graph.initializer:
        weight.ClearField("doc_string")
        weight.ClearField("metadata_props")
    del proto.graph.value_info[:]


def store_weights_as_half(proto: onnx.ModelProto) -> None:
    """Turns large float32 weights into float16 with a cast behind them, which a runtime folds when it loads them."""
    kept = []
    casts = []
    for weight in proto.graph.initializer:
        elements = int(np.prod(weight.dims))
        if weight.data_type != TensorProto.FLOAT or elements < HALVED_FROM:
            kept.append(weight)
            continue
        half = numpy_helper.to_array(weight).astype(np.float16)
        kept.append(numpy_helper.from_array(half, f"{weight.name}_half"))
        casts.append(helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend(kept)
    proto.graph.node.extend(casts + nodes)
