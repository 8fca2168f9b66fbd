"""Measures a model on real clips: the outputs of each of its graphs, and how well it does each task.

Tasks are measured from the outputs of graphs by the same code, whatever runs the graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from hbi_engines.engine import Arrays, Runnable
from hbi_export.precision.compared_model import ComparedModel
from hbi_infer.errors import ExportError, TrainingError
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.graph_names import GRAPHS, PAIR_GRAPHS
from hbi_infer.model.text_generation import generate
from hbi_infer.model.video_encoder import frame_features
from hbi_infer.tokens.levels import Levels, LevelTokens, named_inputs, some
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation.answers import answers_to, questions_about
from hbi_training.evaluation.captions import caption_metrics
from hbi_training.evaluation.evaluate import MEASURED_DECODING, retrieval_texts
from hbi_training.evaluation.retrieval import retrieval_metrics

ITEMS_AT_ONCE = 16
PAIRS_COMPARED = 64
"""Pairs of a clip and a text of it, on whose tokens the other graphs are compared."""


@dataclass(frozen=True)
class Measurement:
    """Outputs and metrics of one model.

    Attributes:
        model: The model.
        outputs: Graph -> outputs (B, ...): of the encoders for all clips and texts, of the other graphs for pairs.
        metrics: "text_to_video/R@1", "answer/accuracy", "caption/CIDEr" and so on, in percent but for ranks and counts.
    """

    model: ComparedModel
    outputs: Mapping[str, Arrays]
    metrics: Mapping[str, float]


def measure_model(model: ComparedModel, clips: Split, reference: Measurement | None = None) -> Measurement:
    """Runs every graph of a model, and measures every task that it has graphs and the split has texts for.

    Args:
        model: The model.
        clips: Clips of a split.
        reference: Measurement whose tokens the graphs on tokens get, so that each differs by its own rounding alone.

    Raises:
        ExportError: A graph gives values that are not numbers.
        TrainingError: The split has neither captions nor questions for the model's tasks.
    """
    rows, records = clips.cache.decoded.tolist(), clips.records
    described = [place for place, row in enumerate(rows) if records[row].captions]
    asked = questions_about(records, rows)
    captions, video_of_text = retrieval_texts(records, [rows[place] for place in described])
    outputs = _encode_clips(model, clips)
    video = _levels(model, outputs[model.clip_graph])
    text_encoder = model.open_graph("text_encoder")
    texts = captions or [question.question for _, question in asked]
    if not texts:
        raise TrainingError("there is nothing to measure: the split has neither captions nor questions")
    outputs["text_encoder"] = _encode_texts(model, text_encoder, texts)
    metrics: dict[str, float] = {}
    if captions:
        text = _levels(model, outputs["text_encoder"])
        scores = model.scoring.similarity(text, some(video, np.array(described)))
        metrics |= retrieval_metrics([scores], video_of_text).as_dict()
    if asked and model.can("qa"):
        place_of_row = {row: place for place, row in enumerate(rows)}
        places = np.array([place_of_row[row] for row, _ in asked])
        questions = [question.question for _, question in asked]
        logits = _answer(model, text_encoder, questions, video, places)
        metrics |= answers_to(asked, logits, model.answers).accuracy()
    if captions and model.can("caption"):
        written = _write_captions(model, some(video, np.array(described)))
        scored = caption_metrics(written, [records[rows[place]].captions for place in described])
        metrics |= {f"caption/{name}": value for name, value in scored.items()}
    if not metrics:
        raise TrainingError(f"there is nothing to measure: the split has only questions, and {model} answers none")
    of_text = [described[place] for place in video_of_text] or [rows.index(row) for row, _ in asked]
    given = reference.outputs if reference else outputs
    outputs |= _run_on_tokens(model, given, np.array(of_text[:PAIRS_COMPARED]))
    return Measurement(model, outputs, metrics)


def _encode_clips(model: ComparedModel, clips: Split) -> dict[str, Arrays]:
    """Runs the graphs that encode clips, and returns the outputs of each."""
    graphs = [name for name in ("frame_encoder", model.clip_graph) if name in model.graphs]
    engines = {name: model.open_graph(name) for name in graphs}
    outputs: dict[str, list[Arrays]] = {name: [] for name in graphs}
    for start in range(0, len(clips.cache.decoded), ITEMS_AT_ONCE):
        frames, mask = clips.cache[clips.cache.decoded[start : start + ITEMS_AT_ONCE]]
        inputs: Arrays = {"frames": frames, "frame_mask": mask}
        if frame_encoder := engines.get("frame_encoder"):
            run = partial(_run, model, "frame_encoder", frame_encoder)
            features = frame_features(run, frames, mask, ITEMS_AT_ONCE)
            outputs["frame_encoder"].append({"features": features})
            inputs = {"features": features, "frame_mask": mask}
        outputs[model.clip_graph].append(_run(model, model.clip_graph, engines[model.clip_graph], inputs))
    return {name: _joined(parts) for name, parts in outputs.items()}


def _encode_texts(model: ComparedModel, encoder: Runnable, texts: Sequence[str]) -> Arrays:
    """Encodes texts that are all padded to the longest."""
    batch = model.tokenizer.encode(texts, model.max_words)
    inputs = {"token_ids": batch.ids, "token_mask": batch.mask}
    return _joined([_run(model, "text_encoder", encoder, part) for part in _parts(inputs)])


def _answer(
    model: ComparedModel,
    encoder: Runnable,
    questions: Sequence[str],
    video: Levels,
    places: npt.NDArray[np.int64],
) -> torch.Tensor:
    """Computes logits (N, A) of N questions, each about the clip at its place."""
    answerer = model.open_graph("answerer")
    parts = []
    for start in range(0, len(questions), PAIRS_COMPARED):
        part = slice(start, start + PAIRS_COMPARED)
        text = _levels(model, _encode_texts(model, encoder, questions[part]))
        inputs = {**named_inputs("text", text), **named_inputs("video", some(video, places[part]))}
        parts.append(_run(model, "answerer", answerer, inputs)["logits"])
    return torch.from_numpy(np.concatenate(parts))


def _write_captions(model: ComparedModel, video: Levels) -> list[str]:
    decoder = CaptionDecoder(model.open_graph("captioner_prefill"), model.open_graph("captioner_step"))
    tokenizer, options = model.tokenizer, MEASURED_DECODING.within(model.max_words)
    captions: list[str] = []
    for start in range(0, len(next(iter(video.values()))), ITEMS_AT_ONCE):
        logits, state = decoder.begin(some(video, slice(start, start + ITEMS_AT_ONCE)))
        written = generate(decoder, logits, state, options, end_id=tokenizer.eot_id, forbidden=[tokenizer.sot_id])
        captions += [tokenizer.decode(text.token_ids) for text in written]
    return captions


def _run_on_tokens(
    model: ComparedModel, given: Mapping[str, Arrays], clip_of_text: npt.NDArray[np.int64]
) -> dict[str, Arrays]:
    """Runs all but the encoders on the first texts and their clips, from given tokens and a given state of captions."""
    texts = {name: array[: len(clip_of_text)] for name, array in given["text_encoder"].items()}
    clips = {name: array[clip_of_text] for name, array in given[model.clip_graph].items()}
    video = named_inputs("video", _levels(model, clips))
    pairs = {**named_inputs("text", _levels(model, texts)), **video}
    outputs = {name: _run_open(model, name, pairs) for name in PAIR_GRAPHS if name in model.graphs}
    if "captioner_prefill" in model.graphs:
        outputs["captioner_prefill"] = _run_open(model, "captioner_prefill", video)
    if "captioner_step" in model.graphs:
        state = given.get("captioner_prefill", outputs["captioner_prefill"])
        step = {
            name.replace("present_", "past_"): array for name, array in state.items() if not name.startswith("logits")
        }
        step["token_ids"] = state["logits"].argmax(axis=1)
        outputs["captioner_step"] = _run_open(model, "captioner_step", step)
    return outputs


def _run_open(model: ComparedModel, graph: str, inputs: Arrays) -> Arrays:
    """Runs a graph part by part; where texts and clips are crossed, all of them meet in one run."""
    engine = model.open_graph(graph)
    parts = [inputs] if GRAPHS[graph].crossed else _parts(inputs)
    return _joined([_run(model, graph, engine, part) for part in parts])


def _run(model: ComparedModel, graph: str, engine: Runnable, inputs: Arrays) -> Arrays:
    outputs = engine.run(inputs)
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise ExportError(
                f"{model} is refused: its {graph} gives {name} with values that are not numbers, as products that "
                "overflow do; bf16 has the range of float32"
            )
    return outputs


def _levels(model: ComparedModel, outputs: Arrays) -> dict[str, LevelTokens]:
    return {
        level: LevelTokens(outputs[f"{level}_tokens"], outputs[f"{level}_weights"]) for level in model.scoring.rates
    }


def _parts(inputs: Arrays) -> list[Arrays]:
    num_items = len(next(iter(inputs.values())))
    return [
        {name: array[start : start + ITEMS_AT_ONCE] for name, array in inputs.items()}
        for start in range(0, num_items, ITEMS_AT_ONCE)
    ]


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
