"""A model's parts as ONNX graphs: its encoders, and the graphs on the tokens that they give."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from hbi_engines.engine import Arrays
from hbi_export.graphs.custom_ops import TRANSLATIONS, add_functions
from hbi_export.graphs.interaction_op import banzhaf_interaction
from hbi_export.graphs.similarity_op import token_similarity
from hbi_export.graphs.stored_weights import store_weights
from hbi_export.graphs.token_merge_op import merging_as_nodes
from hbi_infer.model.graph_names import GRAPHS, exported_graphs
from hbi_training.model.caption_decoder import Cache, Memory
from hbi_training.model.config import LEVELS, HBIConfig
from hbi_training.model.hbi import HBI
from hbi_training.model.token_interaction import Tokens
from hbi_training.weights.checkpoint import Checkpoint, Model
from hbi_training.weights.rounding import Weights

OPSET = 20
MAX_BATCH = 4096
MAX_FRAMES = 2**16


class Example(NamedTuple):
    """Inputs to trace a module with.

    Attributes:
        inputs: Name -> tensor of two or three items, in the order of the module's arguments.
        axes: Name of an input -> its dynamic axes, besides the batch.
    """

    inputs: dict[str, Tensor]
    axes: Mapping[str, Mapping[int, Dim]]


class GraphModule(nn.Module, ABC):
    """A module behind a graph: takes tensors in the order of `input_names`, gives named tensors."""

    name: ClassVar[str]
    """Name of its graph in `GRAPHS`."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the arguments of `forward`."""
        return GRAPHS[self.name].input_names(LEVELS)

    @abstractmethod
    def example(self) -> Example:
        """Makes inputs to trace the module with."""


class FrameEncoderGraph(GraphModule):
    """The frame encoder: a feature for each of N frames, of any clips."""

    name = "frame_encoder"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.size = model.frame_encoder, model.config.sampling.image_size

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Encodes frames (N, H, W, 3) uint8 into features (N, D) float32."""
        return {"features": self.encoder(self.encoder.normalise(frames)).float()}

    def example(self) -> Example:
        """Makes two frames; their number is dynamic."""
        frames = torch.zeros(2, self.size, self.size, 3, dtype=torch.uint8)
        return Example({"frames": frames}, {"frames": {0: Dim("num_frames", min=1, max=MAX_FRAMES)}})


class ClipEncoderGraph(GraphModule):
    """The rest of the video encoder: tokens and weights of each level for B clips, from their frames' features."""

    name = "clip_encoder"
    blank: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        config = model.config
        # The released code encodes missing frames too, as pixels that are 0 after normalisation.
        size = config.sampling.image_size
        self.fills = isinstance(config, HBIConfig) and config.merging == "released"
        with torch.no_grad():
            blank = model.frame_encoder(torch.zeros(1, 3, size, size)) if self.fills else torch.zeros(1, config.width)
        self.register_buffer("blank", blank, persistent=False)

    def forward(self, features: Tensor, frame_mask: Tensor) -> dict[str, Tensor]:
        """Encodes features (B, F, D) under a mask (B, F) bool; see `named`."""
        if self.fills:
            features = torch.where(frame_mask[:, :, None], features, self.blank)
        return named(self.model.encode_features(features.flatten(0, 1), frame_mask))

    def example(self) -> Example:
        """Makes two clips of all frames; only the batch is dynamic."""
        config = self.model.config
        features = torch.zeros(2, config.sampling.max_frames, config.width)
        return Example({"features": features, "frame_mask": torch.ones(features.shape[:2], dtype=torch.bool)}, {})


class TextEncoderGraph(GraphModule):
    """The text encoder: tokens and weights of each level for B texts."""

    name = "text_encoder"

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> dict[str, Tensor]:
        """Encodes token ids (B, T) int64 under a mask (B, T) bool; see `named`."""
        return named(self.model.encode_text(token_ids, token_mask))

    def example(self) -> Example:
        """Makes two texts of eight tokens; a text may have from two to `max_words`."""
        inputs = {"token_ids": torch.ones(2, 8, dtype=torch.int64), "token_mask": torch.ones(2, 8, dtype=torch.bool)}
        length = {1: Dim("text_length", min=2, max=self.model.config.max_words)}
        return Example(inputs, dict.fromkeys(inputs, length))


def named(levels: Mapping[str, Tokens]) -> dict[str, Tensor]:
    """Names tokens (B, N, D) and weights (B, N), float32, and slots of the level below, int64, of each level.

    No mask is among them: a weight is 0 at padding and nowhere else, even where the softmax underflowed.
    """
    parts: dict[str, Tensor] = {}
    for level, (tokens, weights, mask, slots) in levels.items():
        weights = weights.float()
        parts[f"{level}_tokens"] = tokens.float()
        parts[f"{level}_weights"] = torch.where(mask, weights.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)
        if slots is not None:
            parts[f"{level}_slots"] = slots
    return parts


class TokenGraph(GraphModule):
    """Base of the graphs on the encoders' tokens: for each side and level tokens (B, N, D), then weights (B, N).

    Args:
        config: Sizes of the model whose tokens go in.
    """

    def __init__(self, config: HBIConfig) -> None:
        super().__init__()
        self.config = config

    def levels(self, inputs: tuple[Tensor, ...]) -> list[dict[str, Tokens]]:
        """Sorts inputs, tokens (B, N, D) and weights (B, N) in turn, into the levels of each side."""
        pairs = [
            Tokens(tokens, weights, weights > 0) for tokens, weights in zip(inputs[::2], inputs[1::2], strict=True)
        ]
        starts = range(0, len(pairs), len(LEVELS))
        return [dict(zip(LEVELS, pairs[start : start + len(LEVELS)], strict=True)) for start in starts]

    def example(self) -> Example:
        """Makes tokens of two items; of three videos where they are crossed, for equal numbers would become one axis.

        Only the first level of a text has a dynamic length, and not where the released merging needs all of it.
        """
        crossed = GRAPHS[self.name].crossed
        sizes = {"text": self.config.text_token_counts, "video": self.config.video_token_counts}
        numbers = {side: Dim(f"num_{side}s", min=1, max=MAX_BATCH) for side in sizes}
        length = Dim("text_length", min=2, max=self.config.max_words)
        inputs: dict[str, Tensor] = {}
        axes: dict[str, dict[int, Dim]] = {}
        for name in self.input_names:
            side, level, part = name.split("_")
            items = 3 if crossed and side == "video" else 2
            shape = (items, sizes[side][LEVELS.index(level)], self.config.width)
            inputs[name] = torch.ones(shape if part == "tokens" else shape[:2])
            axes[name] = {0: numbers[side]} if crossed else {}
            if (side, level) == ("text", LEVELS[0]) and self.config.merging != "released":
                axes[name][1] = length
        return Example(inputs, axes)


class AnswererGraph(TokenGraph):
    """Calibrated logits of the answers to B questions about B videos."""

    name = "answerer"

    def __init__(self, model: HBI) -> None:
        super().__init__(model.config)
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes logits (B, A)."""
        question, video = self.levels(inputs)
        return {"logits": self.model.answer_logits(question, video)}


class InteractionGraph(TokenGraph):
    """The exact Banzhaf interaction of the tokens of B texts and B videos."""

    name = "interaction"

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes an interaction (B, T, V) for each level."""
        texts, videos = self.levels(inputs)
        found = {}
        for level, text in texts.items():
            video = videos[level]
            cosines = F.normalize(text.tokens, dim=-1) @ F.normalize(video.tokens, dim=-1).mT
            found[f"{level}_interaction"] = banzhaf_interaction(
                cosines, text.weights, video.weights, text.mask, video.mask
            )
        return found


class SimilarityGraph(TokenGraph):
    """The score of each of A texts with each of B videos."""

    name = "similarity"

    def __init__(self, config: HBIConfig) -> None:
        super().__init__(config)
        self.rates = dict(zip(LEVELS, config.level_rates, strict=True))
        self.padding_is_zero = int(config.padded_partner == "zero")

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes scores (A, B)."""
        texts, videos = self.levels(inputs)
        scores = [
            rate * token_similarity(*texts[level][:2], *videos[level][:2], self.padding_is_zero)
            for level, rate in self.rates.items()
        ]
        return {"scores": torch.stack(scores).sum(0)}


class RerankerGraph(TokenGraph):
    """The score of B pairs of a text and a video by their reconstructed tokens."""

    name = "reranker"

    def __init__(self, model: HBI) -> None:
        super().__init__(model.config)
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes a score (B,)."""
        text, video = self.levels(inputs)
        pair = self.model.reconstruct(text, video)
        return {"score": self.model.score(self.model.matched_similarity(*pair))[:, 0]}


class CaptionerPrefillGraph(TokenGraph):
    """The first step of captions: reads B videos and the start token.

    Args:
        model: A model with a caption decoder.
        start_id: Token that captions begin with.
    """

    name = "captioner_prefill"

    def __init__(self, model: HBI, start_id: int) -> None:
        super().__init__(model.config)
        self.model = model
        self.start_id = start_id

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Computes logits (B, A) behind the start, with memory and cache (B, layers, heads, N, D / heads)."""
        (video,) = self.levels(inputs)
        assert self.model.caption_decoder is not None
        memory = self.model.read(video)
        start = torch.full_like(memory.mask[:, 0], self.start_id, dtype=torch.int64)
        logits, cache = self.model.caption_decoder.step(start, memory)
        return {"logits": logits, **_named(memory, "memory"), **_named(cache, "present")}


class CaptionerStepGraph(GraphModule):
    """Every further step of captions: one more token of each of B captions."""

    name = "captioner_step"

    def __init__(self, model: HBI) -> None:
        super().__init__()
        assert model.caption_decoder is not None
        self.config = model.config
        self.decoder = model.caption_decoder

    def forward(
        self, token_ids: Tensor, keys: Tensor, values: Tensor, mask: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> dict[str, Tensor]:
        """Computes logits (B, A) behind token ids (B,) int64, and a cache that is longer by one."""
        logits, cache = self.decoder.step(token_ids, Memory(keys, values, mask), Cache(past_keys, past_values))
        return {"logits": logits, **_named(cache, "present")}

    def example(self) -> Example:
        """Makes a third word of two captions; a length of one would be taken for a constant."""
        shapes = [(2, size, self.config.width) for size in self.config.video_token_counts]
        video = {
            level: Tokens(torch.ones(shape), torch.ones(shape[:2]), torch.ones(shape[:2], dtype=torch.bool))
            for level, shape in zip(LEVELS, shapes, strict=True)
        }
        ids = torch.ones(2, dtype=torch.int64)
        with torch.no_grad():
            memory = self.decoder.read(video)
            _, cache = self.decoder.step(ids, memory)
        past = Cache(*(torch.cat([part, part], dim=3) for part in cache))
        # Each word has a position, and so has the start before them.
        length = {3: Dim("num_before", min=1, max=self.config.max_words - 1)}
        inputs = {"token_ids": ids, **_named(memory, "memory"), **_named(past, "past")}
        return Example(inputs, {"past_keys": length, "past_values": length})


def _named(state: Memory | Cache, name: str) -> dict[str, Tensor]:
    return {f"{name}_{part}": tensor for part, tensor in state._asdict().items()}


_MAKERS: dict[str, Callable[[Any, int], GraphModule]] = {
    "frame_encoder": lambda model, _: FrameEncoderGraph(model),
    "clip_encoder": lambda model, _: ClipEncoderGraph(model),
    "text_encoder": lambda model, _: TextEncoderGraph(model),
    "interaction": lambda model, _: InteractionGraph(model.config),
    "similarity": lambda model, _: SimilarityGraph(model.config),
    "reranker": lambda model, _: RerankerGraph(model),
    "answerer": lambda model, _: AnswererGraph(model),
    "captioner_prefill": CaptionerPrefillGraph,
    "captioner_step": lambda model, _: CaptionerStepGraph(model),
}
"""Name of a graph -> its module, from a model and the token that captions begin with."""


def graph_names(model: Model) -> tuple[str, ...]:
    """Returns the names of the graphs that a bundle of this model may have."""
    return tuple(name for name in exported_graphs() if GRAPHS[name].task in model.tasks)


def graph_module(checkpoint: Checkpoint, name: str) -> GraphModule:
    """Makes the module behind a graph of `graph_names`."""
    return _MAKERS[name](checkpoint.model, checkpoint.tokenizer.sot_id)


@dataclass(frozen=True)
class TracedGraph:
    """A graph, and the module that it was traced from.

    Attributes:
        module: The eager original.
        content: The serialised ONNX model.
        input_names: Names in the order of the module's arguments.
        output_names: Names in the order of its results.
    """

    module: nn.Module
    content: bytes
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def eager(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the module itself on the graph's inputs (B, ...)."""
        with torch.inference_mode():
            results = self.module(*(torch.from_numpy(inputs[name]) for name in self.input_names))
        return {name: result.numpy() for name, result in results.items()}


def trace_graph(checkpoint: Checkpoint, name: str, *, weights: Weights = "float32") -> TracedGraph:
    """Traces a graph of `graph_names` with a dynamic batch, and a dynamic length of texts and captions.

    Args:
        checkpoint: A model on the processor, in evaluation mode.
        name: Name of the graph.
        weights: Format that large weights are stored in; the graph computes in float32.
    """
    module = graph_module(checkpoint, name)
    return trace(module, *module.example(), weights)


def trace(
    module: nn.Module, inputs: dict[str, Tensor], axes: Mapping[str, Mapping[int, Dim]], weights: Weights = "float32"
) -> TracedGraph:
    """Traces a module with named outputs.

    Args:
        module: The module.
        inputs: Example inputs (B, ...), by name in the order of the arguments; axis 0 of each is dynamic.
        axes: Further dynamic axes of some inputs.
        weights: Format that large weights are stored in.
    """
    module.eval()
    batch = Dim("batch", min=1, max=MAX_BATCH)
    shapes = tuple({0: batch, **axes.get(name, {})} for name in inputs)
    with torch.no_grad():
        outputs = tuple(module(*inputs.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and of torchvision, which nothing here needs
        with merging_as_nodes(module):
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
    add_functions(proto)
    store_weights(proto, weights)
    content = proto.SerializeToString(deterministic=True)
    del proto
    onnx.checker.check_model(content, full_check=True)
    return TracedGraph(module, content, tuple(inputs), outputs)


def strip_notes(proto: onnx.ModelProto) -> None:
    """Drops the exporter's notes about its own source: paths of this machine, and a third of the size."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for weight in proto.graph.initializer:
        weight.ClearField("doc_string")
        weight.ClearField("metadata_props")
    del proto.graph.value_info[:]
