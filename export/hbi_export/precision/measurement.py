"""A side measured on real clips: what each of its graphs gives, and how well it does each task.

The tasks are measured from the outputs of graphs by one code, whatever runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hbi_engines.engine import Arrays, Runnable
from hbi_export.precision.compared_model import Side
from hbi_infer.errors import ExportError, TrainingError
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.text_generation import generate
from hbi_infer.tokens.levels import Levels, LevelTokens, named_inputs, some
from hbi_infer.tokens.similarity import similarity
from hbi_training.data.frame_cache import Split
from hbi_training.evaluation.answers import answers_to, questions_about
from hbi_training.evaluation.captions import caption_metrics
from hbi_training.evaluation.evaluate import MEASURED_DECODING, retrieval_texts
from hbi_training.evaluation.retrieval import retrieval_metrics

ITEMS_AT_ONCE = 16
PAIRS_COMPARED = 64
"""Of a clip and a text of it, on whose tokens the other graphs are compared."""
PAIR_GRAPHS = ("interaction", "reranker", "answerer")


@dataclass(frozen=True)
class Measurement:
    """What one side gave.

    Attributes:
        side: Which.
        outputs: Graph -> outputs (B, ...): of the encoders for all clips and texts, of the other graphs for pairs.
        metrics: "text_to_video/R@1", "answer/accuracy", "caption/CIDEr" and so on, in percent but for ranks and counts.
    """

    side: Side
    outputs: Mapping[str, Arrays]
    metrics: Mapping[str, float]


def measure_side(side: Side, clips: Split, reference: Measurement | None = None) -> Measurement:
    """Runs every graph of a side, and measures every task that it has graphs and the split has texts for.

    Args:
        side: What to measure.
        clips: Of a split.
        reference: Graphs that work on tokens get its tokens, so that each differs by its own rounding alone.

    Raises:
        ExportError: A graph gives values that are not numbers.
        TrainingError: The split has neither captions nor questions for what the side can do.
    """
    rows, records = clips.cache.decoded.tolist(), clips.records
    described = [place for place, row in enumerate(rows) if records[row].captions]
    asked = questions_about(records, rows)
    captions, video_of_text = retrieval_texts(records, [rows[place] for place in described])
    encoders = {name: side.open_graph(name) for name in ("video_encoder", "text_encoder")}
    outputs: dict[str, Arrays] = {"video_encoder": _encode_clips(side, encoders["video_encoder"], clips)}
    video = _levels(side, outputs["video_encoder"])
    texts = captions or [question.question for _, question in asked]
    if not texts:
        raise TrainingError("there is nothing to measure: the split has neither captions nor questions")
    outputs["text_encoder"] = _encode_texts(side, encoders["text_encoder"], texts)
    metrics: dict[str, float] = {}
    if captions:
        text = _levels(side, outputs["text_encoder"])
        scores = similarity(text, some(video, np.array(described)), side.rates, padded_partner=side.padded_partner)
        metrics |= retrieval_metrics([scores], video_of_text).as_dict()
    if asked and side.can("qa"):
        place_of_row = {row: place for place, row in enumerate(rows)}
        places = np.array([place_of_row[row] for row, _ in asked])
        questions = [question.question for _, question in asked]
        logits = _answer(side, encoders["text_encoder"], questions, video, places)
        metrics |= answers_to(asked, logits, side.answers).accuracy()
    if captions and side.can("caption"):
        written = _write_captions(side, some(video, np.array(described)))
        scored = caption_metrics(written, [records[rows[place]].captions for place in described])
        metrics |= {f"caption/{name}": value for name, value in scored.items()}
    if not metrics:
        raise TrainingError(f"there is nothing to measure: the split has only questions, and {side} answers none")
    of_text = [described[place] for place in video_of_text] or [rows.index(row) for row, _ in asked]
    given = reference.outputs if reference else outputs
    outputs |= _run_on_tokens(side, given, np.array(of_text[:PAIRS_COMPARED]))
    return Measurement(side, outputs, metrics)


def _encode_clips(side: Side, encoder: Runnable, clips: Split) -> Arrays:
    parts = []
    for start in range(0, len(clips.cache.decoded), ITEMS_AT_ONCE):
        frames, mask = clips.cache[clips.cache.decoded[start : start + ITEMS_AT_ONCE]]
        parts.append(_run(side, "video_encoder", encoder, {"frames": frames, "frame_mask": mask}))
    return _joined(parts)


def _encode_texts(side: Side, encoder: Runnable, texts: Sequence[str]) -> Arrays:
    """All padded to the longest."""
    batch = side.tokenizer.encode(texts, side.max_words)
    inputs = {"token_ids": batch.ids, "token_mask": batch.mask}
    return _joined([_run(side, "text_encoder", encoder, part) for part in _parts(inputs)])


def _answer(
    side: Side, encoder: Runnable, questions: Sequence[str], video: Levels, places: np.ndarray[Any, np.dtype[np.int64]]
) -> torch.Tensor:
    """(Q, A) logits of the questions, each about the clip at its place."""
    answerer = side.open_graph("answerer")
    parts = []
    for start in range(0, len(questions), PAIRS_COMPARED):
        part = slice(start, start + PAIRS_COMPARED)
        text = _levels(side, _encode_texts(side, encoder, questions[part]))
        inputs = {**named_inputs("text", text), **named_inputs("video", some(video, places[part]))}
        parts.append(_run(side, "answerer", answerer, inputs)["logits"])
    return torch.from_numpy(np.concatenate(parts))


def _write_captions(side: Side, video: Levels) -> list[str]:
    decoder = CaptionDecoder(side.open_graph("captioner_prefill"), side.open_graph("captioner_step"))
    tokenizer, options = side.tokenizer, MEASURED_DECODING.within(side.max_words)
    captions: list[str] = []
    for start in range(0, len(next(iter(video.values()))), ITEMS_AT_ONCE):
        logits, state = decoder.begin(some(video, slice(start, start + ITEMS_AT_ONCE)))
        written = generate(decoder, logits, state, options, end_id=tokenizer.eot_id, forbidden=[tokenizer.sot_id])
        captions += [tokenizer.decode(text.token_ids) for text in written]
    return captions


def _run_on_tokens(
    side: Side, given: Mapping[str, Arrays], clip_of_text: np.ndarray[Any, np.dtype[np.int64]]
) -> dict[str, Arrays]:
    """Graph -> outputs for the first texts and their clips, whose tokens, and whose state of captions, are given."""
    texts = {name: array[: len(clip_of_text)] for name, array in given["text_encoder"].items()}
    clips = {name: array[clip_of_text] for name, array in given["video_encoder"].items()}
    video = named_inputs("video", _levels(side, clips))
    pairs = {**named_inputs("text", _levels(side, texts)), **video}
    outputs = {name: _run_open(side, name, pairs) for name in PAIR_GRAPHS if name in side.graphs}
    if "captioner_prefill" in side.graphs:
        outputs["captioner_prefill"] = _run_open(side, "captioner_prefill", video)
    if "captioner_step" in side.graphs:
        state = given.get("captioner_prefill", outputs["captioner_prefill"])
        step = {
            name.replace("present_", "past_"): array for name, array in state.items() if not name.startswith("logits")
        }
        step["token_ids"] = state["logits"].argmax(axis=1)
        outputs["captioner_step"] = _run_open(side, "captioner_step", step)
    return outputs


def _run_open(side: Side, graph: str, inputs: Arrays) -> Arrays:
    engine = side.open_graph(graph)
    return _joined([_run(side, graph, engine, part) for part in _parts(inputs)])


def _run(side: Side, graph: str, engine: Runnable, inputs: Arrays) -> Arrays:
    outputs = engine.run(inputs)
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise ExportError(
                f"{side} is refused: its {graph} gives {name} with values that are not numbers, as products that "
                "overflow do; bf16 has the range of float32"
            )
    return outputs


def _levels(side: Side, outputs: Arrays) -> dict[str, LevelTokens]:
    return {level: LevelTokens(outputs[f"{level}_tokens"], outputs[f"{level}_weights"]) for level in side.rates}


def _parts(inputs: Arrays) -> list[Arrays]:
    num_items = len(next(iter(inputs.values())))
    return [
        {name: array[start : start + ITEMS_AT_ONCE] for name, array in inputs.items()}
        for start in range(0, num_items, ITEMS_AT_ONCE)
    ]


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
