"""Times each stage of indexing, searching, answering and captioning.

Every runtime takes and returns NumPy arrays, as in use: on a GPU the copies count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays
from hbi_infer.bench.operations import count_operations
from hbi_infer.bench.plan import STAGES
from hbi_infer.errors import VideoError
from hbi_infer.model.encoder import encode_clips, token_layout
from hbi_infer.model.token_model import TokenModel
from hbi_infer.model.video_encoder import differs_from_the_one_before
from hbi_infer.options import FrameSampling
from hbi_infer.tokens.levels import Levels, item, some
from hbi_infer.tokens.similarity import ClipMatrix, top
from hbi_infer.video.decoded_video import Clip
from hbi_infer.video.reader import decode

Item = TypeVar("Item")

SCORED_CLIPS = 1000
"""Number of clips that a query is scored with."""
FOUND_CLIPS = 10
"""Number of best clips that a search returns."""
MOST_CLIPS = 64
"""Largest number of decoded clips kept in memory; larger batches repeat some of them."""
CHECKED = 4
"""Number of clips and of texts that every device encodes for the comparison."""
LEAST_RUNS = 3
WARM_UP_PART = 0.25
"""Duration of the warm-up, as a share of a measurement's seconds."""

TEXTS = (
    "a red circle moves left and then blinks",
    "a man is playing the guitar on a stage",
    "two dogs run across a field",
    "someone folds a sheet of paper and cuts it with scissors while a voice explains each of the steps",
    "a woman chops onions",
    "a blue square grows",
    "cars drive along a wet street at night",
    "children throw a ball to each other in a park near the river",
)
QUESTIONS = ("what colour is the circle?", "what is the man playing?", "how many dogs are there?", "who cuts it?")


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """Time that one stage takes.

    Attributes:
        stage: One of `STAGES`.
        batch: Items of a call; for whole videos, the mean number of clips in one.
        items: Name of the items: clips, texts, queries, questions.
        runs: Number of timed calls.
        warm_up_runs: Number of calls before those.
        first_seconds: Time of the very first call, in which graphs are loaded or compiled.
        p50_seconds: Median time of a call.
        p90_seconds: 90th percentile.
        p99_seconds: 99th percentile; for few runs it is close to the slowest.
        items_per_second: Throughput over all timed calls.
        operations: Arithmetic operations of a call (`hbi_infer.bench.operations`); 0 where they are not counted.
    """

    stage: str
    batch: int
    items: str
    runs: int
    warm_up_runs: int
    first_seconds: float
    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    items_per_second: float
    operations: int = 0


@dataclass(frozen=True)
class Call:
    """One stage, ready to be timed.

    Attributes:
        stage: One of `STAGES`.
        batch: Items of a call; for whole videos, the mean number of clips in one.
        run: Runs the stage once; returns the number of items.
        operations: Arithmetic operations of a call; 0 where they are not counted.
    """

    stage: str
    batch: int
    run: Callable[[], int]
    operations: int = 0


def measure(call: Call, seconds: float) -> StageTiming:
    """Times a call for about `seconds` after a warm-up; a slow one for longer, until `LEAST_RUNS` runs are done."""
    first, _ = _timed(call.run)
    warm_up_runs, warm_up = 1, first
    while warm_up < WARM_UP_PART * seconds:
        warm_up += _timed(call.run)[0]
        warm_up_runs += 1
    taken: list[float] = []
    items, total = 0, 0.0
    while len(taken) < LEAST_RUNS or total < seconds:
        once, done = _timed(call.run)
        taken.append(once)
        total += once
        items += done
    p50, p90, p99 = np.percentile(taken, (50, 90, 99)).tolist()
    return StageTiming(
        stage=call.stage,
        batch=call.batch,
        items=STAGES[call.stage],
        runs=len(taken),
        warm_up_runs=warm_up_runs,
        first_seconds=first,
        p50_seconds=p50,
        p90_seconds=p90,
        p99_seconds=p99,
        items_per_second=items / total,
        operations=call.operations,
    )


def _timed(run: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    items = run()
    return time.perf_counter() - started, items


class Workload:
    """Clips of videos and a few sentences that a model is timed on.

    Args:
        hbi: The model.
        videos: Video files; damaged ones are left out.

    Raises:
        VideoError: None of the videos can be decoded.
    """

    def __init__(self, hbi: TokenModel, videos: Sequence[Path]) -> None:
        self._hbi = hbi
        decoded = {video: decode(video, hbi.bundle.manifest.sampling).clips for video in videos}
        self._num_clips = {video: len(clips) for video, clips in decoded.items() if clips}
        self._clips = [clip for clips in decoded.values() for clip in clips][:MOST_CLIPS]
        if not self._clips:
            raise VideoError(f"none of the {len(videos)} videos to measure with can be decoded: give others")

    def checked(self) -> dict[str, npt.NDArray[np.float32]]:
        """Encodes a few clips and texts.

        Returns:
            "SIDE LEVEL tokens" -> (B, N, D) float32 and "SIDE LEVEL weights" -> (B, N) float32, with B = `CHECKED`, the
            sides "video" and "text", and N the tokens of the level.
        """
        encoded = {"video": self._encoded(self._some_clips(CHECKED)), "text": self._hbi.encode_text(TEXTS[:CHECKED])}
        return {
            f"{side} {level} {part}": getattr(tokens, part)
            for side, levels in encoded.items()
            for level, tokens in levels.items()
            for part in ("tokens", "weights")
        }

    def host_calls(self, batches: Sequence[int]) -> Iterator[Call]:
        """Yields the stages that always run on the processor."""
        sampling = self._hbi.bundle.manifest.sampling
        videos = cycle(self._num_clips)
        yield Call("decode", self._usual_clips(), lambda: len(decode(next(videos), sampling).clips))
        for batch in batches:
            texts = _some(TEXTS, batch)
            yield Call("tokenise", batch, lambda texts=texts: len(self._hbi.tokenize(texts).ids))  # type: ignore[misc]

    def device_calls(self, batches: Sequence[int], wanted: Sequence[str]) -> Iterator[Call]:
        """Yields the stages in `wanted` that run on a device and that the bundle can do."""
        makers: dict[str, Callable[[int], Call]] = {
            "encode": self._encode,
            "text encode": self._text_encode,
            "score": self._score,
            "similarity": self._similarity,
            "answer": self._answer,
            "caption": self._caption,
            "query end to end": self._query,
        }
        tasks = {"answer": "qa", "caption": "caption"}
        manifest = self._hbi.bundle.manifest
        for stage, make in makers.items():
            if stage in wanted and tasks.get(stage, "retrieve") in manifest.tasks:
                yield from (make(batch) for batch in batches)
        if "video end to end" in wanted:
            yield self._video()

    def _encode(self, batch: int) -> Call:
        frames, mask = _stacked(self._some_clips(batch))
        operations = self._operations_of_clips(frames, mask)
        return Call("encode", batch, lambda: _size(self._hbi.encode_video(frames, mask)), operations)

    def _text_encode(self, batch: int) -> Call:
        tokens = self._hbi.tokenize(_some(TEXTS, batch))
        operations = self._operations("text_encoder", {"token_ids": tokens.ids, "token_mask": tokens.mask})
        return Call("text encode", batch, lambda: _size(self._hbi.encode_tokens(tokens)), operations)

    def _score(self, batch: int) -> Call:
        texts = self._hbi.encode_text(_some(TEXTS, batch))
        return Call("score", batch, lambda: self._search(texts))

    def _similarity(self, batch: int) -> Call:
        texts, clips = self._hbi.encode_text(_some(TEXTS, batch)), self._tokens(SCORED_CLIPS)
        return Call("similarity", batch, lambda: len(self._hbi.similarity(texts, clips)))

    def _query(self, batch: int) -> Call:
        texts = _some(TEXTS, batch)
        return Call("query end to end", batch, lambda: self._search(self._hbi.encode_text(texts)))

    def _search(self, texts: Levels) -> int:
        """Finds the best clips of B texts as an index in memory does; returns B."""
        for row in range(_size(texts)):
            top(self._matrix.score(item(texts, row)), FOUND_CLIPS)
        return _size(texts)

    @cached_property
    def _matrix(self) -> ClipMatrix:
        layout = token_layout(self._hbi)
        matrix = self._hbi.scoring.matrix(layout, SCORED_CLIPS)
        matrix.extend(np.arange(SCORED_CLIPS), layout.pack(self._tokens(SCORED_CLIPS)))
        return matrix

    def _answer(self, batch: int) -> Call:
        questions, clips = self._hbi.encode_text(_some(QUESTIONS, batch)), self._tokens(batch)
        return Call("answer", batch, lambda: len(self._hbi.answer_logits(questions, clips)))

    def _caption(self, batch: int) -> Call:
        clips = self._tokens(batch)
        return Call("caption", batch, lambda: len(self._hbi.write_captions(clips)))

    def _video(self) -> Call:
        videos, sampling = cycle(self._num_clips), self._hbi.bundle.manifest.sampling

        def run() -> int:
            return sum(map(_size, encode_clips(self._hbi, decode(next(videos), sampling).clips)))

        return Call("video end to end", self._usual_clips(), run)

    def _operations_of_clips(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> int:
        """Counts the operations of encoding clips, whose frames cost the same each."""
        if "clip_encoder" not in self._hbi.bundle.manifest.graphs:
            return self._operations("video_encoder", {"frames": frames, "frame_mask": mask})
        of_frame = self._operations("frame_encoder", {"frames": frames[0, :1]})
        features = np.zeros((*mask.shape, self._hbi.bundle.manifest.width), np.float32)
        of_clips = self._operations("clip_encoder", {"features": features, "frame_mask": mask})
        return of_frame * int(differs_from_the_one_before(frames, mask).sum()) + of_clips

    def _operations(self, graph: str, inputs: Arrays) -> int:
        return count_operations(self._hbi.bundle.graph_bytes(graph), inputs)

    def _usual_clips(self) -> int:
        """Returns the mean number of clips in a video, at least 1."""
        return max(round(sum(self._num_clips.values()) / len(self._num_clips)), 1)

    def _some_clips(self, number: int) -> list[Clip]:
        return _some(self._clips, number)

    def _encoded(self, clips: Sequence[Clip]) -> Levels:
        return self._hbi.encode_video(*_stacked(clips))

    def _tokens(self, number: int) -> Levels:
        """Returns the tokens of `number` clips, only few of them different: the values of tokens cost no time."""
        few = self._encoded(self._some_clips(min(number, CHECKED)))
        return some(few, np.arange(number) % _size(few))


def draw_videos(folder: Path, sampling: FrameSampling, number: int = 2) -> list[Path]:
    """Draws H.264 videos of 640 x 360 pixels and one clip each: a disc crosses a sliding pattern.

    Args:
        folder: Existing folder for the files.
        sampling: Length of a clip.
        number: Number of videos.
    """
    import av

    height, width, rate = 360, 640, 25
    rows, columns = np.mgrid[:height, : 2 * width]
    pattern = np.stack([columns * 255 // (2 * width), rows * 255 // height, (rows ^ columns) & 255], axis=-1)
    pattern = pattern.astype(np.uint8)
    paths = [folder / f"drawn{place}.mp4" for place in range(number)]
    for place, path in enumerate(paths):
        num_frames = max(round(rate * sampling.clip_seconds), 1)
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for step in range(num_frames):
                done = step / num_frames
                picture = pattern[:, round(done * width) :][:, :width].copy()
                centre_row, centre_column = height * (0.3 + 0.4 * place / number), width * (0.1 + 0.8 * done)
                disc = (rows[:, :width] - centre_row) ** 2 + (columns[:, :width] - centre_column) ** 2 < 60**2
                picture[disc] = (230, 40 + 180 * place // number, 30)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return paths


def _some(items: Sequence[Item], number: int) -> list[Item]:
    """Returns `number` items, from the start again where there are fewer."""
    return list(islice(cycle(items), number))


def _stacked(clips: Sequence[Clip]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    return np.stack([clip.frames for clip in clips]), np.stack([clip.mask for clip in clips])


def _size(levels: Levels) -> int:
    """Returns the batch size B."""
    return len(next(iter(levels.values())))
