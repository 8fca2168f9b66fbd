"""Retrieval metrics: recall at K, median and mean rank, from texts to videos and back.

Similarities come in blocks of rows (some texts x all videos), so that memory holds all scores (4 bytes per pair) but
never all of the token-by-token maps behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import TrainingError

Scores = npt.NDArray[np.floating[Any]]

Ties = Literal["pessimistic", "released"]
"""Treatment of equal scores. A match has rank 1 + (wrong candidates that score higher), and then

- "pessimistic" adds 1 for each wrong candidate that scores the same, so that a model with one score for every pair gets
  a recall of 0 instead of 100.
- "released", as in the authors' code, counts each place that the tied candidates share as one more query, found at
  that place. The two agree where no scores are equal.
"""

RECALL_AT = (1, 5, 10, 50)
BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class Ranking:
    """Metrics of one direction.

    Attributes:
        recall: Percentage of queries whose match is among the first K, for each K in `RECALL_AT`.
        median_rank: Median rank of the matches; 1 is best.
        mean_rank: Mean rank of the matches; 1 is best.
    """

    recall: Mapping[int, float]
    median_rank: float
    mean_rank: float

    @classmethod
    def from_ranks(cls, ranks: npt.NDArray[np.int64]) -> Ranking:
        """Computes the metrics from the rank of each query's match, (Q,) int64, of which 1 is best."""
        recall = {k: 100 * float(np.mean(ranks <= k)) for k in RECALL_AT}
        return cls(recall, float(np.median(ranks)), float(np.mean(ranks)))


@dataclass(frozen=True)
class RetrievalMetrics:
    """Metrics of both directions."""

    text_to_video: Ranking
    video_to_text: Ranking

    def as_dict(self) -> dict[str, float]:
        """Returns a flat mapping for TensorBoard and JSON: text_to_video/R@1 ... video_to_text/MnR."""
        return {
            f"{direction}/{name}": value
            for direction, ranking in (("text_to_video", self.text_to_video), ("video_to_text", self.video_to_text))
            for name, value in {
                **{f"R@{k}": recall for k, recall in ranking.recall.items()},
                "MdR": ranking.median_rank,
                "MnR": ranking.mean_rank,
            }.items()
        }


def retrieval_metrics(
    blocks: Iterable[Scores], video_of_text: npt.ArrayLike | None = None, *, ties: Ties = "pessimistic"
) -> RetrievalMetrics:
    """Ranks all videos for every text and all texts for every video.

    Args:
        blocks: Blocks (B, V) of the similarity matrix, in the order of the texts; B may differ between blocks.
        video_of_text: Video that each text belongs to, (N,) int; None if text i belongs to video i. A text looks for
            its one video; a video with several texts looks for the best of them, and its others do not count as wrong.
        ties: Treatment of equal scores.

    Raises:
        TrainingError: There are no scores, or one is NaN.
        ValueError: The blocks do not fit together or do not fit `video_of_text`.

    Example:
        >>> retrieval_metrics([np.array([[3.0, 1.0]]), np.array([[2.0, 1.0]])]).text_to_video.recall[1]
        50.0
    """
    rows = [np.asarray(block, dtype=np.float32) for block in blocks]
    if not sum(len(block) for block in rows):
        raise TrainingError("there are no similarities to rank; the split has no texts")
    scores = np.concatenate(rows)
    num_texts, num_videos = scores.shape
    videos = np.arange(num_texts) if video_of_text is None else np.asarray(video_of_text)
    if videos.shape != (num_texts,) or not np.array_equal(np.unique(videos), np.arange(num_videos)):
        raise ValueError(f"video_of_text does not give each of {num_texts} texts one of {num_videos} videos, all used")
    if np.isnan(scores).any():
        raise TrainingError("a similarity is not a number (NaN); the model diverged: lower the learning rate")
    all_videos = np.arange(num_videos)
    return RetrievalMetrics(
        text_to_video=Ranking.from_ranks(_ranks(scores, videos, all_videos, ties)),
        video_to_text=Ranking.from_ranks(_ranks(scores.T, all_videos, videos, ties)),
    )


def _ranks(
    scores: Scores, video_of_query: npt.NDArray[np.int64], video_of_candidate: npt.NDArray[np.int64], ties: Ties
) -> npt.NDArray[np.int64]:
    """Returns the rank of each query's best match, (Q,) int64; "released" ties add entries where scores are equal."""
    ranks = []
    block = max(1, BLOCK_BYTES // scores.shape[1])
    for start in range(0, len(scores), block):
        # (B, C)
        part = scores[start : start + block]
        is_match = video_of_query[start : start + block, None] == video_of_candidate
        best = np.max(part, axis=1, keepdims=True, where=is_match, initial=-np.inf)
        higher = np.sum((part > best) & ~is_match, axis=1)
        equal = np.sum((part == best) & ~is_match, axis=1)
        if ties == "pessimistic":
            ranks.append(1 + higher + equal)
        else:
            ranks += [np.arange(1 + above, 2 + above + same) for above, same in zip(higher, equal, strict=True)]
    return np.concatenate(ranks)
