"""A model's parts as ONNX graphs: its encoders, and what works on the tokens that they give."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from hbi_export.interaction_op import TRANSLATIONS, add_function, banzhaf_interaction
from hbi_training.answer_head import AnswerHead
from hbi_training.checkpoint import Model
from hbi_training.config import LEVELS, HBIConfig
from hbi_training.model import HBI
from hbi_training.token_interaction import Tokens

OPSET = 20
HALVED_FROM = 1024  # elements; small tensors are not worth a cast
Arrays = dict[str, npt.NDArray[np.generic]]


class VideoEncoderGraph(nn.Module):
    """frames (B, F, H, W, 3) uint8, frame_mask (B, F) bool -> tokens and weights of each level."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, frame_mask: Tensor) -> dict[str, Tensor]:
        """What `named` gives of the clips' tokens."""
        return named(self.model.encode_video(frames, frame_mask))


class TextEncoderGraph(nn.Module):
    """token_ids (B, T) int64, token_mask (B, T) bool -> tokens and weights of each level."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        # The released merging makes tokens of padding too, as many as the longest text asks for.
        self.pads = getattr(model.config, "merging", "masked") == "released"

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> dict[str, Tensor]:
        """What `named` gives of the texts' tokens."""
        if self.pads:
            length = self.model.config.max_words
            token_ids, token_mask = (F.pad(part, (0, length))[:, :length] for part in (token_ids, token_mask))
        return named(self.model.encode_text(token_ids, token_mask))


def named(levels: Mapping[str, Tokens]) -> dict[str, Tensor]:
    """Tokens (B, N, D) and weights (B, N), float32, and the slots of the level below, int64, of each level.

    Masks go without saying: a weight is 0 at padding and nowhere else, even where the softmax underflowed.
    """
    parts: dict[str, Tensor] = {}
    for level, (tokens, weights, mask, slots) in levels.items():
        weights = weights.float()
        parts[f"{level}_tokens"] = tokens.float()
        parts[f"{level}_weights"] = torch.where(mask, weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)
        if slots is not None:
            parts[f"{level}_slots"] = slots
    return parts


class TokenGraph(nn.Module):
    """What a graph on the tokens of B texts and B videos has in common: their names, and the order they come in.

    Args:
        levels: Names of the levels.
    """

    def __init__(self, levels: tuple[str, ...]) -> None:
        super().__init__()
        self.input_names = tuple(
            f"{side}_{level}_{part}" for side in ("text", "video") for level in levels for part in ("tokens", "weights")
        )
        self.levels = levels

    def sides(self, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tokens], dict[str, Tokens]]:
        """The levels of the texts and of the videos."""
        pairs = [
            Tokens(tokens, weights, weights > 0) for tokens, weights in zip(inputs[::2], inputs[1::2], strict=True)
        ]
        size = len(self.levels)
        return dict(zip(self.levels, pairs[:size], strict=True)), dict(zip(self.levels, pairs[size:], strict=True))


class AnswererGraph(TokenGraph):
    """Tokens and weights of B questions and B videos -> logits (B, A) of the answers."""

    def __init__(self, head: AnswerHead) -> None:
        super().__init__(tuple(head.levels))
        self.head = head

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        return {"logits": self.head.combine(self.head(*self.sides(inputs)))}


class InteractionGraph(TokenGraph):
    """Tokens and weights of B texts and B videos -> the exact Banzhaf interaction (B, T, V) at each level."""

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        texts, videos = self.sides(inputs)
        found = {}
        for level, text in texts.items():
            video = videos[level]
            cosines = F.normalize(text.tokens, dim=-1) @ F.normalize(video.tokens, dim=-1).mT
            found[f"{level}_interaction"] = banzhaf_interaction(
                cosines, text.weights, video.weights, text.mask, video.mask
            )
        return found


class RerankerGraph(TokenGraph):
    """Tokens and weights of B texts and B videos -> the score (B,) of their reconstructed tokens."""

    def __init__(self, model: HBI) -> None:
        super().__init__(LEVELS)
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        pair = self.model.reconstruct(*self.sides(inputs))
        return {"score": self.model.score(self.model.matched_similarity(*pair))[:, 0]}


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
        return {name: result.numpy() for name, result in results.items()}


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
    inputs = {"frames": frames, "frame_mask": mask}
    return trace(VideoEncoderGraph(model), inputs, {}, half_weights)


def trace_text_encoder(model: Model, *, half_weights: bool = False) -> TracedGraph:
    """Traces `encode_text` with a dynamic batch and a dynamic length of text, at most the model's `max_words`."""
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.ones(2, 8, dtype=torch.bool)
    length = Dim("text_length", min=2, max=model.config.max_words)
    return trace(
        TextEncoderGraph(model),
        {"token_ids": ids, "token_mask": mask},
        {"token_ids": length, "token_mask": length},
        half_weights,
    )


def trace_answerer(head: AnswerHead, config: HBIConfig, *, half_weights: bool = False) -> TracedGraph:
    """Traces an answer head for the tokens of a model, with a dynamic batch and a dynamic length of question."""
    return _trace_on_tokens(AnswererGraph(head), config, half_weights)


def trace_reranker(model: HBI, *, half_weights: bool = False) -> TracedGraph:
    """Traces the score of reconstructed pairs, with a dynamic batch and a dynamic length of text."""
    return _trace_on_tokens(RerankerGraph(model), model.config, half_weights)


def trace_interaction(config: HBIConfig) -> TracedGraph:
    """Traces the interaction for the tokens of a model, with a dynamic batch and a dynamic length of text."""
    return _trace_on_tokens(InteractionGraph(LEVELS), config, half_weights=False)


def _trace_on_tokens(graph: TokenGraph, config: HBIConfig, half_weights: bool) -> TracedGraph:
    """Only the first level of a text has a dynamic length, and not where the released merging needs all of it."""
    sizes = {"text": config.text_token_counts, "video": config.video_token_counts}
    inputs = {}
    for name in graph.input_names:
        side, level, part = name.split("_")
        size = (2, sizes[side][LEVELS.index(level)])
        inputs[name] = torch.ones(*size, config.width) if part == "tokens" else torch.ones(size)
    length = Dim("text_length", min=2, max=config.max_words)
    dynamic = [] if config.merging == "released" else graph.input_names[:2]
    return trace(graph, inputs, dict.fromkeys(dynamic, length), half_weights)


def trace(
    module: nn.Module, inputs: dict[str, Tensor], lengths: Mapping[str, Dim], half_weights: bool = False
) -> TracedGraph:
    """Traces a module of named outputs; the batch of every input is dynamic, and the length of those in `lengths`."""
    module.eval()
    batch = Dim("batch", min=1, max=4096)
    shapes = tuple({0: batch, 1: lengths[name]} if name in lengths else {0: batch} for name in inputs)
    with torch.no_grad():
        outputs = tuple(module(*inputs.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and of torchvision, which nothing here needs
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(shapes,) if isinstance(module, TokenGraph) else shapes,  # *inputs are one argument
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    del program  # weights are large: no copy is kept longer than it must be
    strip_notes(proto)
    add_function(proto)
    if half_weights:
        store_weights_as_half(proto)
    content = proto.SerializeToString(deterministic=True)
    del proto
    onnx.checker.check_model(content, full_check=True)
    return TracedGraph(module, content, tuple(inputs), outputs)


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
