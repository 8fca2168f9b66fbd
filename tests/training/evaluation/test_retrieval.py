from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hbi_infer.errors import TrainingError
from hbi_training.evaluation import retrieval as metrics
from hbi_training.evaluation.retrieval import Ranking, RetrievalMetrics, retrieval_metrics
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = np.load(GOLDEN_FOLDER / "metrics.npz")


def blocks(scores: npt.NDArray[Any], size: int) -> list[npt.NDArray[Any]]:
    return [scores[start : start + size] for start in range(0, len(scores), size)]


@pytest.mark.parametrize(("name", "prefix"), [("a", "a"), ("a", "aT"), ("ties", "ties")])
def test_golden(name: str, prefix: str) -> None:
    """The released code's numbers, to the last digit but one."""
    result = retrieval_metrics(blocks(GOLDEN[name], 7), ties="released")
    ranking = result.video_to_text if prefix.endswith("T") else result.text_to_video
    expected = [float(GOLDEN[f"{prefix}.{key}"]) for key in ("R1", "R5", "R10", "R50", "MR", "MeanR")]
    assert [*ranking.recall.values(), ranking.median_rank, ranking.mean_rank] == pytest.approx(expected, rel=1e-12)


def test_without_ties_the_rules_agree() -> None:
    assert retrieval_metrics([GOLDEN["a"]]) == retrieval_metrics([GOLDEN["a"]], ties="released")


def test_ties_cost_a_place() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 5.0]])
    assert retrieval_metrics([scores]).text_to_video.mean_rank == pytest.approx(5 / 3)
    constant = retrieval_metrics([np.zeros((100, 100))])
    assert constant.text_to_video.recall == {1: 0.0, 5: 0.0, 10: 0.0, 50: 0.0}
    assert (constant.video_to_text.median_rank, constant.video_to_text.mean_rank) == (100.0, 100.0)


def test_several_captions_of_a_video() -> None:
    # texts 0, 1 -> video 0; text 2 -> video 1
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.5]])
    result = retrieval_metrics([scores], [0, 0, 1])
    assert result.text_to_video == Ranking.from_ranks(np.array([1, 2, 2]))
    # Video 0 finds text 0 first; video 1 finds text 2 first. Text 1 is no mistake of video 0's.
    assert result.video_to_text == Ranking.from_ranks(np.array([1, 1]))
    assert retrieval_metrics([np.array([[0.9, 0.1], [0.9, 0.3], [0.8, 0.2]])], [0, 0, 1]).video_to_text == (
        Ranking.from_ranks(np.array([1, 2]))
    )


def test_flat_names() -> None:
    result = RetrievalMetrics(Ranking.from_ranks(np.array([1, 3, 8])), Ranking.from_ranks(np.array([1, 1, 60])))
    assert result.as_dict() == pytest.approx(
        {
            "text_to_video/R@1": 100 / 3,
            "text_to_video/R@5": 200 / 3,
            "text_to_video/R@10": 100.0,
            "text_to_video/R@50": 100.0,
            "text_to_video/MdR": 3.0,
            "text_to_video/MnR": 4.0,
            "video_to_text/R@1": 200 / 3,
            "video_to_text/R@5": 200 / 3,
            "video_to_text/R@10": 200 / 3,
            "video_to_text/R@50": 200 / 3,
            "video_to_text/MdR": 1.0,
            "video_to_text/MnR": 62 / 3,
        }
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scores with many ties, and which video each text belongs to."""
    num_videos = draw(st.integers(1, 6))
    extra = draw(st.lists(st.integers(0, num_videos - 1), max_size=6))
    videos = np.array(draw(st.permutations([*range(num_videos), *extra])))
    scores = draw(arrays(np.int64, (len(videos), num_videos), elements=st.integers(-3, 3)))
    return scores.astype(np.float32), videos


@settings(deadline=None)
@given(problems(), st.integers(1, 5), st.integers(1, 40))
def test_ranks_are_positions_in_a_sorted_list(
    problem: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]], size: int, block_bytes: int
) -> None:
    scores, videos = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK_BYTES", block_bytes)
        result = retrieval_metrics(blocks(scores, size), videos)

    def rank(row: npt.NDArray[np.float32], is_match: npt.NDArray[np.bool_]) -> int:
        # The match comes last among equals; its other matches are left out.
        kept = [(score, False) for score in row[~is_match]] + [(row[is_match].max(), True)]
        order = sorted(kept, key=lambda item: (-item[0], item[1]))
        return order.index((row[is_match].max(), True)) + 1

    by_text = [rank(row, np.arange(scores.shape[1]) == video) for row, video in zip(scores, videos, strict=True)]
    by_video = [rank(scores[:, video], videos == video) for video in range(scores.shape[1])]
    assert result.text_to_video == Ranking.from_ranks(np.array(by_text))
    assert result.video_to_text == Ranking.from_ranks(np.array(by_video))


@pytest.mark.parametrize(
    ("scores", "videos", "error", "message"),
    [
        ([], None, TrainingError, "no similarities"),
        ([np.zeros((0, 3))], None, TrainingError, "no similarities"),
        ([np.array([[0.0, np.nan], [0.0, 1.0]])], None, TrainingError, r"not a number \(NaN\)"),
        ([np.zeros((3, 2))], None, ValueError, "each of 3 texts one of 2 videos"),
        ([np.zeros((2, 2))], [0, 0], ValueError, "all used"),
        ([np.zeros((2, 2)), np.zeros((1, 3))], [0, 1, 0], ValueError, "dimensions"),
    ],
)
def test_bad_input(scores: Any, videos: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        retrieval_metrics(scores, videos)


def test_infinite_scores_are_ranked() -> None:
    scores = np.array([[np.inf, 0.0], [-np.inf, -np.inf]])
    assert retrieval_metrics([scores]).text_to_video == Ranking.from_ranks(np.array([1, 2]))
