"""A model's parts as ONNX graphs: its encoders, and what works on the tokens that they give."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from hbi_export.graphs.custom_ops import TRANSLATIONS, add_functions
from hbi_export.graphs.interaction_op import banzhaf_interaction
from hbi_export.graphs.similarity_op import token_similarity
from hbi_export.graphs.stored_weights import store_weights
from hbi_export.graphs.token_merge_op import merging_as_nodes
from hbi_training.model.caption_decoder import Cache, Memory
from hbi_training.model.config import LEVELS, HBIConfig
from hbi_training.model.hbi import HBI
from hbi_training.model.token_interaction import Tokens
from hbi_training.weights.checkpoint import Model
from hbi_training.weights.rounding import Weights

OPSET = 20
Arrays = dict[str, npt.NDArray[np.generic]]


class VideoEncoderGraph(nn.Module):
    """frames (B, F, H, W, 3) uint8, frame_mask (B, F) bool -> tokens and weights of each level."""

    input_names = ("frames", "frame_mask")

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, frame_mask: Tensor) -> dict[str, Tensor]:
        """What `named` gives of the clips' tokens."""
        return named(self.model.encode_video(frames, frame_mask))


class TextEncoderGraph(nn.Module):
    """token_ids (B, T) int64, token_mask (B, T) bool -> tokens and weights of each level."""

    input_names = ("token_ids", "token_mask")

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
    """What graphs on the tokens of B texts and B videos have in common: their names, and the order they come in.

    Args:
        sides: Whose tokens go in.
    """

    def __init__(self, *sides: str) -> None:
        super().__init__()
        self.sides = sides
        self.input_names = tuple(
            f"{side}_{level}_{part}" for side in sides for level in LEVELS for part in ("tokens", "weights")
        )

    def levels(self, inputs: tuple[Tensor, ...]) -> list[dict[str, Tokens]]:
        """The levels of each side, from inputs in the order of `input_names`."""
        pairs = [
            Tokens(tokens, weights, weights > 0) for tokens, weights in zip(inputs[::2], inputs[1::2], strict=True)
        ]
        size = len(LEVELS)
        return [
            dict(zip(LEVELS, pairs[number * size : (number + 1) * size], strict=True))
            for number in range(len(self.sides))
        ]


class AnswererGraph(TokenGraph):
    """Tokens and weights of B questions and B videos -> calibrated logits (B, A) of the answers."""

    def __init__(self, model: HBI) -> None:
        super().__init__("text", "video")
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        question, video = self.levels(inputs)
        return {"logits": self.model.answer_logits(question, video)}


class InteractionGraph(TokenGraph):
    """Tokens and weights of B texts and B videos -> the exact Banzhaf interaction (B, T, V) at each level."""

    def __init__(self) -> None:
        super().__init__("text", "video")

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
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
    """Tokens and weights of A texts and B videos -> the score (A, B) of each text with each video."""

    def __init__(self, config: HBIConfig) -> None:
        super().__init__("text", "video")
        self.rates = dict(zip(LEVELS, config.level_rates, strict=True))
        self.padding_is_zero = int(config.padded_partner == "zero")

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        texts, videos = self.levels(inputs)
        scores = [
            rate * token_similarity(*texts[level][:2], *videos[level][:2], self.padding_is_zero)
            for level, rate in self.rates.items()
        ]
        return {"scores": torch.stack(scores).sum(0)}


class RerankerGraph(TokenGraph):
    """Tokens and weights of B texts and B videos -> the score (B,) of their reconstructed tokens."""

    def __init__(self, model: HBI) -> None:
        super().__init__("text", "video")
        self.model = model

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        text, video = self.levels(inputs)
        pair = self.model.reconstruct(text, video)
        return {"score": self.model.score(self.model.matched_similarity(*pair))[:, 0]}


class CaptionerPrefillGraph(TokenGraph):
    """Tokens and weights of B videos -> what the decoder has read of them, and the logits (B, A) behind the start."""

    def __init__(self, model: HBI, start_id: int) -> None:
        super().__init__("video")
        self.model = model
        self.start_id = start_id

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        (video,) = self.levels(inputs)
        assert self.model.caption_decoder is not None
        memory = self.model.read(video)
        start = torch.full_like(memory.mask[:, 0], self.start_id, dtype=torch.int64)
        logits, cache = self.model.caption_decoder.step(start, memory)
        return {"logits": logits, **_named(memory, "memory"), **_named(cache, "present")}


class CaptionerStepGraph(nn.Module):
    """One token (N,) int64 of each caption, what was read of its video, a cache -> logits (N, A), a longer cache."""

    input_names = ("token_ids", "memory_keys", "memory_values", "memory_mask", "past_keys", "past_values")

    def __init__(self, model: HBI) -> None:
        super().__init__()
        assert model.caption_decoder is not None
        self.decoder = model.caption_decoder

    def forward(
        self, token_ids: Tensor, keys: Tensor, values: Tensor, mask: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> dict[str, Tensor]:
        """In the order of `input_names`."""
        logits, cache = self.decoder.step(token_ids, Memory(keys, values, mask), Cache(past_keys, past_values))
        return {"logits": logits, **_named(cache, "present")}


def _named(state: Memory | Cache, name: str) -> dict[str, Tensor]:
    return {f"{name}_{part}": tensor for part, tensor in state._asdict().items()}


def graph_modules(model: Model, start_id: int) -> dict[str, nn.Module]:
    """Name -> the module behind each graph that a bundle of this model has.

    Args:
        model: In evaluation mode.
        start_id: The token that captions begin with.
    """
    modules: dict[str, nn.Module] = {"video_encoder": VideoEncoderGraph(model), "text_encoder": TextEncoderGraph(model)}
    if isinstance(model, HBI):
        modules["interaction"] = InteractionGraph()
        if model.reconstruction is not None:
            modules["reranker"] = RerankerGraph(model)
        if model.answer_head is not None:
            modules["answerer"] = AnswererGraph(model)
        if model.caption_decoder is not None:
            modules["captioner_prefill"] = CaptionerPrefillGraph(model, start_id)
            modules["captioner_step"] = CaptionerStepGraph(model)
    return modules


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


def trace_video_encoder(model: Model, *, weights: Weights = "float32") -> TracedGraph:
    """Traces `encode_video` with a dynamic batch.

    Args:
        model: On the CPU, in evaluation mode.
        weights: How they are stored; the graph computes in float32.
    """
    sampling = model.config.sampling
    size = sampling.image_size
    frames = torch.zeros(2, sampling.max_frames, size, size, 3, dtype=torch.uint8)
    mask = torch.ones(2, sampling.max_frames, dtype=torch.bool)
    inputs = {"frames": frames, "frame_mask": mask}
    return trace(VideoEncoderGraph(model), inputs, {}, weights)


def trace_text_encoder(model: Model, *, weights: Weights = "float32") -> TracedGraph:
    """Traces `encode_text` with a dynamic batch and a dynamic length of text, at most the model's `max_words`."""
    ids = torch.ones(2, 8, dtype=torch.int64)
    mask = torch.ones(2, 8, dtype=torch.bool)
    length = {1: Dim("text_length", min=2, max=model.config.max_words)}
    inputs = {"token_ids": ids, "token_mask": mask}
    return trace(TextEncoderGraph(model), inputs, dict.fromkeys(inputs, length), weights)


def trace_answerer(model: HBI, *, weights: Weights = "float32") -> TracedGraph:
    """Traces the calibrated logits of answers, with a dynamic batch and a dynamic length of question."""
    return _trace_on_tokens(AnswererGraph(model), model.config, weights)


def trace_reranker(model: HBI, *, weights: Weights = "float32") -> TracedGraph:
    """Traces the score of reconstructed pairs, with a dynamic batch and a dynamic length of text."""
    return _trace_on_tokens(RerankerGraph(model), model.config, weights)


def trace_interaction(config: HBIConfig) -> TracedGraph:
    """Traces the interaction for the tokens of a model, with a dynamic batch and a dynamic length of text."""
    return _trace_on_tokens(InteractionGraph(), config)


def trace_similarity(config: HBIConfig) -> TracedGraph:
    """Traces the scores of all pairs of a model's tokens, with any number of texts, of videos and length of text."""
    numbers = {side: {0: Dim(f"num_{side}s", min=1, max=4096)} for side in ("text", "video")}
    return _trace_on_tokens(SimilarityGraph(config), config, numbers=numbers)


def trace_captioner(model: HBI, start_id: int, *, weights: Weights = "float32") -> tuple[TracedGraph, TracedGraph]:
    """Traces the first and every further token of captions, with a dynamic batch and a dynamic length of the cache."""
    prefill = _trace_on_tokens(CaptionerPrefillGraph(model, start_id), model.config, weights)
    tokens = {name: torch.ones(shape) for name, shape in _token_shapes(prefill.input_names, model.config).items()}
    with torch.no_grad():
        state = prefill.module(*tokens.values())
    ids = torch.ones(2, dtype=torch.int64)
    inputs = {"token_ids": ids, **{name: state[name] for name in CaptionerStepGraph.input_names if name in state}}
    for part in ("keys", "values"):  # two words: a length of 1 would be taken for a constant
        inputs[f"past_{part}"] = torch.cat([state[f"present_{part}"]] * 2, dim=3)
    # Each word has a position, and so has the start before them.
    length = {3: Dim("num_before", min=1, max=model.config.max_words - 1)}
    lengths = {"past_keys": length, "past_values": length}
    return prefill, trace(CaptionerStepGraph(model), inputs, lengths, weights)


def _trace_on_tokens(
    graph: TokenGraph,
    config: HBIConfig,
    weights: Weights = "float32",
    numbers: Mapping[str, Mapping[int, Dim]] | None = None,
) -> TracedGraph:
    """Only the first level of a text has a dynamic length, and not where the released merging needs all of it.

    Args:
        graph: What to trace.
        config: Of the model whose tokens it takes.
        weights: How they are stored.
        numbers: Side -> the dynamic number of its items; by default both sides have as many.
    """
    inputs = {name: torch.ones(shape) for name, shape in _token_shapes(graph.input_names, config).items()}
    dynamic = {name: dict((numbers or {}).get(name.partition("_")[0], {})) for name in inputs}
    length = Dim("text_length", min=2, max=config.max_words)
    for name in (f"text_{LEVELS[0]}_{part}" for part in ("tokens", "weights")):
        if name in inputs and config.merging != "released":
            dynamic[name][1] = length
    if numbers:  # another number than the texts', which else would be taken for the same
        inputs = {
            name: tensor[:1].repeat(3, *(1,) * (tensor.ndim - 1)) if name.startswith("video") else tensor
            for name, tensor in inputs.items()
        }
    return trace(graph, inputs, dynamic, weights)


def _token_shapes(names: Sequence[str], config: HBIConfig) -> dict[str, tuple[int, ...]]:
    """Of inputs of two items."""
    sizes = {"text": config.text_token_counts, "video": config.video_token_counts}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        side, level, part = name.split("_")
        num_tokens = sizes[side][LEVELS.index(level)]
        shapes[name] = (2, num_tokens, config.width) if part == "tokens" else (2, num_tokens)
    return shapes


def trace(
    module: nn.Module, inputs: dict[str, Tensor], lengths: Mapping[str, Mapping[int, Dim]], weights: Weights = "float32"
) -> TracedGraph:
    """Traces a module of named outputs.

    Args:
        module: What to trace.
        inputs: An example, by name in the order of the arguments; the batch of each is dynamic.
        lengths: Further dynamic axes of some inputs.
        weights: How they are stored.
    """
    module.eval()
    batch = Dim("batch", min=1, max=4096)
    shapes = tuple({0: batch, **lengths.get(name, {})} for name in inputs)
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
    """Drops what the exporter notes of its own source at every node: paths of this machine, and a third of the size."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for weight in proto.graph.initializer:
        weight.ClearField("doc_string")
        weight.ClearField("metadata_props")
    del proto.graph.value_info[:]
