"""Measuring a model on a split: every clip and every caption is encoded once, then they are compared tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from hbi_infer.tokenizer import Tokenizer
from hbi_training.checkpoint import Model
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import VideoRecord
from hbi_training.metrics import RetrievalMetrics, retrieval_metrics
from hbi_training.token_interaction import Tokens

Levels = dict[str, Tokens]


@torch.inference_mode()
def evaluate_retrieval(
    model: Model,
    records: Sequence[VideoRecord],
    cache: FrameCache,
    tokenizer: Tokenizer,
    *,
    all_captions: bool = False,
    batch_size: int = 64,
) -> dict[str, float]:
    """Retrieval metrics both ways, of the score and of each level.

    Args:
        model: On any device; left as it was found.
        records: The clips of the split.
        cache: Their frames.
        tokenizer: The model's.
        all_captions: Every caption of a clip is a query; else only its first.
        batch_size: Clips, and captions, of a tile.

    Returns:
        "text_to_video/R@1" and so on of the score; "action/text_to_video/R@1" and so on of each level.
    """
    was_training = model.training
    model.eval()
    rows = cache.decoded
    captions = [caption for row in rows for caption in records[row].captions[: None if all_captions else 1]]
    video_of_text = [i for i, row in enumerate(rows) for _ in records[row].captions[: None if all_captions else 1]]
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
    model.train(was_training)
    result: dict[str, float] = {}
    for level, similarity in blocks.items():
        metrics: RetrievalMetrics = retrieval_metrics(similarity, video_of_text)
        result |= {f"{level}/{name}".lstrip("/"): value for name, value in metrics.as_dict().items()}
    return result


def _parts(items: Sequence[object] | npt.NDArray[np.intp], size: int) -> Iterator[object]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _encode_videos(model: Model, cache: FrameCache, rows: object, device: torch.device) -> Levels:
    frames, mask = (torch.from_numpy(part).to(device) for part in cache[rows])  # type: ignore[index]
    return model.encode_video(frames, mask)


def _encode_texts(model: Model, tokenizer: Tokenizer, captions: object, device: torch.device) -> Levels:
    batch = tokenizer.encode(captions, model.config.max_words)  # type: ignore[arg-type]
    return model.encode_text(torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device))
