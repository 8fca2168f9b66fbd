"""Measuring a model on a split, for every task that it can do and that the split has texts for.

Retrieval encodes every clip and every caption once, then compares them tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import Decoding
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
from hbi_training.evaluation.answers import Answers, answer_questions, calibration_error, fit_temperature
from hbi_training.evaluation.caption_writing import caption_split
from hbi_training.evaluation.captions import caption_metrics
from hbi_training.evaluation.grounding import TorchEncoder, measure_grounding
from hbi_training.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from hbi_training.model.token_interaction import Tokens, TokensByLevel, items
from hbi_training.weights.checkpoint import Model


@dataclass(frozen=True)
class Evaluation:
    """Measured results of a model.

    Attributes:
        metrics: Values by name: "text_to_video/R@1", "answer/accuracy/colour", "caption/CIDEr",
            "grounding/entity/verb/pointing/interaction" and so on, in percent except ranks and counts.
        answers: Answer to each question; None if no questions were asked.
        captions: Row of the split -> caption of the clip; None if the model writes none.
    """

    metrics: dict[str, float]
    answers: Answers | None
    captions: dict[int, str] | None


PAIRS_AT_ONCE = 256
"""Number of pairs that are reconstructed together."""
MEASURED_DECODING = Decoding(beam_size=1)
"""Options of decoding for captions that are measured: greedy, which is quick."""


def evaluate(
    model: Model,
    records: Sequence[VideoRecord],
    cache: FrameCache,
    tokenizer: Tokenizer,
    *,
    all_captions: bool = False,
    rerank: int = 0,
    decoding: Decoding | None = None,
    calibrate: bool = False,
) -> Evaluation:
    """Measures retrieval, grounding, answers and captions.

    Args:
        model: Model on any device; its mode is restored.
        records: Clips of the split.
        cache: Frames of the clips.
        tokenizer: Tokenizer of the model.
        all_captions: See `evaluate_retrieval` and `measure_grounding`.
        rerank: See `evaluate_retrieval`.
        decoding: Options of decoding captions; None for `MEASURED_DECODING`.
        calibrate: True first fits the temperature of the model's answers to these clips, and keeps it.

    Raises:
        TrainingError: The split has neither captions nor questions for what the model can do.
    """
    described = [int(row) for row in cache.decoded if records[row].captions]
    metrics: dict[str, float] = {}
    answers, captions = None, None
    if described:
        metrics |= evaluate_retrieval(model, records, cache, tokenizer, all_captions=all_captions, rerank=rerank)
        metrics |= _grounding(model, records, cache, tokenizer, all_captions=all_captions)
    if "qa" in model.tasks and any(record.questions for record in records):
        model = model.require("qa", "answering questions")
        answers = answer_questions(model, records, cache, tokenizer)
        if calibrate:
            model.config = replace(model.config, answer_temperature=fit_temperature(answers))
        metrics |= answers.accuracy()
        metrics["answer/calibration_error"] = calibration_error(answers, model.config.answer_temperature)
    if "caption" in model.tasks and described:
        written = caption_split(model, cache, described, tokenizer, decoding or MEASURED_DECODING)
        captions = dict(zip(described, written, strict=True))
        scores = caption_metrics(written, [records[row].captions for row in described])
        metrics |= {f"caption/{name}": value for name, value in scores.items()}
    if not metrics:
        raise TrainingError("there is nothing to measure: the split has no captions, and no questions for this model")
    return Evaluation(metrics, answers, captions)


def _grounding(
    model: Model, records: Sequence[VideoRecord], cache: FrameCache, tokenizer: Tokenizer, *, all_captions: bool
) -> dict[str, float]:
    """Measures grounding if captions have phrases with moments."""
    was_training = model.training
    encoder = TorchEncoder(model.eval(), tokenizer)
    found = measure_grounding(encoder, records, cache, max_words=model.config.max_words, all_captions=all_captions)
    model.train(was_training)
    return {f"grounding/{name}": value for name, value in found.items()}


def retrieval_texts(
    records: Sequence[VideoRecord], rows: Sequence[int], *, all_captions: bool = False
) -> tuple[list[str], list[int]]:
    """Returns the captions of clips (the first of each, or all), and the place in `rows` of each caption's clip."""
    texts = [(place, records[row].captions[: None if all_captions else 1]) for place, row in enumerate(rows)]
    captions = [caption for _, some in texts for caption in some]
    return captions, [place for place, some in texts for _ in some]


@torch.no_grad()
def encode_clips(model: Model, cache: FrameCache, batch_size: int = 64) -> TokensByLevel:
    """Computes the tokens (N, V, D) of every clip that could be decoded, in the order of the cache.

    Args:
        model: Model on any device, which also holds the tokens; its mode is restored.
        cache: Frames of the clips.
        batch_size: Clips at a time.
    """
    was_training = model.training
    model.eval()
    device = model.logit_scale.device
    parts = [_encode_videos(model, cache, part, device) for part in _parts(cache.decoded, batch_size)]
    model.train(was_training)
    return joined(parts)


@torch.inference_mode()
def evaluate_retrieval(
    model: Model,
    records: Sequence[VideoRecord],
    cache: FrameCache,
    tokenizer: Tokenizer,
    *,
    all_captions: bool = False,
    rerank: int = 0,
    batch_size: int = 64,
) -> dict[str, float]:
    """Computes retrieval metrics in both directions, of the score and of each level.

    Args:
        model: Model on any device; its mode is restored.
        records: Clips of the split; those without captions are left out.
        cache: Frames of the clips.
        tokenizer: Tokenizer of the model.
        all_captions: True makes every caption of a clip a query; False only its first.
        rerank: Number of best results per query to order anew by their reconstructed tokens; 0 leaves that out.
        batch_size: Clips, and captions, of a tile.

    Returns:
        Values by name: "text_to_video/R@1" ... of the score, "action/text_to_video/R@1" ... of each level, and with
        `rerank` also "reranked/text_to_video/R@1" ...

    Raises:
        TrainingError: `rerank` is given, and the model has no reconstruction.
    """
    was_training = model.training
    model.eval()
    rows = np.array([row for row in cache.decoded if records[row].captions])
    captions, video_of_text = retrieval_texts(records, rows.tolist(), all_captions=all_captions)
    device = model.logit_scale.device
    videos = [_encode_videos(model, cache, part, device) for part in _parts(rows, batch_size)]
    texts = [_encode_texts(model, tokenizer, part, device) for part in _parts(captions, batch_size)]

    blocks: dict[str, list[npt.NDArray[np.float32]]] = {}
    for text in texts:
        tiles = [model.similarity(text, video) for video in videos]
        for level in tiles[0]:
            blocks.setdefault(level, []).append(np.concatenate([tile[level].cpu().numpy() for tile in tiles], axis=1))
        scores = [model.score(tile).cpu().numpy() for tile in tiles]
        blocks.setdefault("", []).append(np.concatenate(scores, axis=1))
    result: dict[str, float] = {}
    for level, similarity in blocks.items():
        metrics: RetrievalMetrics = retrieval_metrics(similarity, video_of_text)
        result |= {f"{level}/{name}".lstrip("/"): value for name, value in metrics.as_dict().items()}
    if rerank:
        total = np.concatenate(blocks[""])
        for way, reranked in reranked_scores(model, texts, videos, total, rerank).items():
            metrics = retrieval_metrics([reranked], video_of_text)
            result |= {f"reranked/{k}": value for k, value in metrics.as_dict().items() if k.startswith(way)}
    model.train(was_training)
    return result


def reranked_scores(
    model: Model,
    texts: Sequence[TokensByLevel],
    videos: Sequence[TokensByLevel],
    scores: npt.NDArray[np.float32],
    num_best: int,
) -> dict[str, npt.NDArray[np.float32]]:
    """Orders the best results of each query by their reconstructed tokens.

    Args:
        model: Model with a reconstruction.
        texts: Text tokens (B, T, D) of each level, in batches that make N texts.
        videos: Video tokens (B, V, D) of each level, in batches that make M videos.
        scores: Scores (N, M) of texts and videos.
        num_best: Number of best results of each query.

    Returns:
        Scores (N, M): "text_to_video", where the queries are the rows, and "video_to_text", where they are the columns.

    Raises:
        TrainingError: The model has no reconstruction.
    """
    model = model.require("rerank", "reranking")
    num_best = min(num_best, *scores.shape)
    chosen = {"text_to_video": np.zeros(scores.shape, np.bool_), "video_to_text": np.zeros(scores.shape, np.bool_)}
    np.put_along_axis(chosen["text_to_video"], np.argsort(-scores, axis=1)[:, :num_best], True, axis=1)
    np.put_along_axis(chosen["video_to_text"], np.argsort(-scores, axis=0)[:num_best], True, axis=0)
    pairs = np.argwhere(chosen["text_to_video"] | chosen["video_to_text"])
    text, video = joined(texts), joined(videos)
    fused = np.zeros_like(scores)
    for part in _parts(pairs, PAIRS_AT_ONCE):
        rows, columns = torch.from_numpy(part).T
        matched = model.reconstruct(items(text, rows), items(video, columns))
        fused[rows, columns] = model.score(model.matched_similarity(*matched))[:, 0].cpu().numpy()
    above = np.float32(np.ptp(scores) + np.ptp(fused) + 1)
    return {way: np.where(best, fused + above, scores) for way, best in chosen.items()}


def joined(parts: Sequence[TokensByLevel]) -> TokensByLevel:
    """Joins batches of tokens (B, N, D), padded to the longest."""
    levels = {}
    for level in parts[0]:
        most = max(part[level].tokens.shape[1] for part in parts)
        padded = [
            (
                F.pad(part[level].tokens, (0, 0, 0, most - part[level].tokens.shape[1])),
                F.pad(part[level].weights, (0, most - part[level].weights.shape[1])),
                F.pad(part[level].mask, (0, most - part[level].mask.shape[1])),
            )
            for part in parts
        ]
        levels[level] = Tokens(*(torch.cat(column) for column in zip(*padded, strict=True)))
    return levels


def _parts(items: Sequence[object] | npt.NDArray[np.intp], size: int) -> Iterator[object]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _encode_videos(model: Model, cache: FrameCache, rows: object, device: torch.device) -> TokensByLevel:
    frames, mask = (torch.from_numpy(part).to(device) for part in cache[rows])  # type: ignore[index]
    return model.encode_video(frames, mask)


def _encode_texts(model: Model, tokenizer: Tokenizer, captions: object, device: torch.device) -> TokensByLevel:
    batch = tokenizer.encode(captions, model.config.max_words)  # type: ignore[arg-type]
    return model.encode_text(torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device))
