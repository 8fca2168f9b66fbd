"""Inputs to check graphs with: random ones, drawn clips with their captions, and videos that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays
from hbi_export.graphs.modules import TracedGraph
from hbi_export.graphs.parity import ITEMS_AT_A_TIME, in_parts
from hbi_infer.errors import ExportError
from hbi_infer.model.graph_names import GRAPHS
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.model.video_encoder import RunGraph, frame_features
from hbi_infer.options import FrameSampling
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.pool import decode_many
from hbi_infer.video.sampling import Stretch, spread
from hbi_training.data.shapes import captions, render, scenes
from hbi_training.data.shapes.scene import CLIP_SECONDS
from hbi_training.model.caption_decoder import CaptionDecoder
from hbi_training.model.config import LEVELS, HBIConfig
from hbi_training.weights.checkpoint import Checkpoint

NUM_RANDOM, NUM_REAL = 4, 16

InputSets = Mapping[str, Arrays]
"""Name of a set, such as "random" -> inputs (B, ...) of a graph by their names."""


class CheckInputs:
    """Inputs for the graphs of one checkpoint.

    Args:
        checkpoint: The model, and the tokenizer for captions.
        graphs: Name -> graph traced so far; the encoders give the tokens that later graphs are checked on.
        samples: Folder of videos to check the video encoder on besides; None for none.

    Raises:
        ExportError: No video of `samples` can be decoded.
    """

    def __init__(
        self, checkpoint: Checkpoint, graphs: Mapping[str, TracedGraph], samples: Path | str | None = None
    ) -> None:
        samples = None if samples is None else Path(samples)
        config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
        self._config: Any = config
        self._graphs = graphs
        self._videos = {"random": random_video_inputs(config.sampling), "drawn": drawn_video_inputs(config.sampling)}
        if samples is not None:
            self._videos["sample"] = video_inputs(samples, config.sampling)
        self._texts = {
            "random": random_text_inputs(tokenizer.vocabulary_size, config.max_words),
            "caption": caption_inputs(tokenizer, config.max_words),
        }

    def of(self, name: str) -> InputSets:
        """Returns sets of inputs (B, ...) for a traced graph."""
        if name == "frame_encoder":
            return {key: {"frames": clips["frames"][clips["frame_mask"]]} for key, clips in self._videos.items()}
        if name == "clip_encoder":
            return {key: self._features(clips) for key, clips in self._videos.items()}
        if name == "text_encoder":
            return self._texts
        if name == "captioner_step":
            prefill = self._graphs["captioner_prefill"]
            return caption_step_inputs(prefill, self._graphs[name], self.of("captioner_prefill")["random"])
        # Other numbers of texts than of videos, where all of them meet.
        sets = {key: fewer_texts(inputs) if GRAPHS[name].crossed else inputs for key, inputs in self._tokens.items()}
        wanted = self._graphs[name].input_names
        return {key: {part: inputs[part] for part in wanted} for key, inputs in sets.items()}

    @cached_property
    def _tokens(self) -> InputSets:
        texts = in_parts(self._graphs["text_encoder"].eager, self._texts["caption"])
        videos = in_parts(self._graphs["clip_encoder"].eager, self._features(self._videos["drawn"]))
        return {"random": random_token_inputs(self._config), "real": encoded_token_inputs(texts, videos)}

    def _features(self, clips: Arrays) -> Arrays:
        return clip_inputs(self._graphs["frame_encoder"].eager, clips)


def clip_inputs(run: RunGraph, clips: Arrays) -> Arrays:
    """Makes the inputs of the graph `clip_encoder` from clips (B, F, ...), whose frames are encoded a few at a time."""
    frames, mask = clips["frames"], clips["frame_mask"]
    return {"features": frame_features(run, frames, mask, ITEMS_AT_A_TIME), "frame_mask": mask}


def random_video_inputs(sampling: FrameSampling) -> Arrays:
    """Makes clips of noise: frames (B, F, H, W, 3) uint8, mask (B, F) bool, from one real frame to F."""
    rng = np.random.default_rng(0)
    size, most = sampling.image_size, sampling.max_frames
    lengths = np.linspace(1, most, NUM_RANDOM).astype(int)
    frames = rng.integers(0, 256, (NUM_RANDOM, most, size, size, 3), dtype=np.uint8)
    return {"frames": frames, "frame_mask": np.arange(most) < lengths[:, None]}


def random_text_inputs(vocabulary_size: int, max_words: int) -> Arrays:
    """Draws ids (B, T) int64 from the whole vocabulary, with a mask (B, T) bool of two real tokens to T."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(2, max_words, NUM_RANDOM).astype(int)
    ids = rng.integers(0, vocabulary_size, (NUM_RANDOM, max_words))
    return {"token_ids": ids, "token_mask": np.arange(max_words) < lengths[:, None]}


def random_token_inputs(config: HBIConfig) -> Arrays:
    """Draws tokens (B, N, D) and weights (B, N), float32, of both sides at every level, one token to N of them real."""
    rng = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {}
    for side, counts in (("text", config.text_token_counts), ("video", config.video_token_counts)):
        for level, count in zip(LEVELS, counts, strict=True):
            # A direction in common, so that cosines are of both signs and all sizes.
            tokens = rng.normal(size=(NUM_RANDOM, count, config.width)) + rng.normal(size=config.width)
            real = np.arange(count) < np.linspace(1, count, NUM_RANDOM).astype(int)[:, None]
            weights = np.exp(2.0 * rng.normal(size=real.shape)) * real
            inputs[f"{side}_{level}_tokens"] = tokens.astype(np.float32)
            inputs[f"{side}_{level}_weights"] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return inputs


def encoded_token_inputs(texts: Arrays, videos: Arrays) -> Arrays:
    """Names the encoders' tokens (B, N, D) and weights (B, N) as the graphs on tokens do."""
    return {
        f"{side}_{level}_{part}": given[f"{level}_{part}"]
        for side, given in (("text", texts), ("video", videos))
        for level in LEVELS
        for part in ("tokens", "weights")
    }


def fewer_texts(inputs: Arrays) -> Arrays:
    """Leaves out the first of B texts, so that texts (B - 1, ...) and videos (B, ...) differ in number."""
    return {name: array[1:] if name.startswith("text") else array for name, array in inputs.items()}


def caption_step_inputs(prefill: TracedGraph, step: TracedGraph, video: Arrays) -> dict[str, Arrays]:
    """Puts random words behind one another: inputs at the first, the second, a middle and the last place of a caption.

    Args:
        prefill: The captioner's first graph; its module gives the state behind the start.
        step: Its second graph, whose module adds the words.
        video: Inputs (B, ...) of the first graph.
    """
    rng = np.random.default_rng(0)
    state = prefill.eager(video)
    num_items, vocabulary_size = state["logits"].shape
    decoder = step.module.decoder
    assert isinstance(decoder, CaptionDecoder)
    last = decoder.max_tokens - 1
    sets: dict[str, Arrays] = {}
    for place in range(1, last + 1):
        ids = rng.integers(0, vocabulary_size, (num_items,))
        past = {f"past_{part}": state[f"present_{part}"] for part in ("keys", "values")}
        inputs = {"token_ids": ids, **{name: state[name] for name in step.input_names if name in state}, **past}
        if place in (1, 2, last // 2, last):
            sets[f"word {place}"] = inputs
        state |= step.eager(inputs)
    return sets


def drawn_video_inputs(sampling: FrameSampling) -> Arrays:
    """Draws clips of moving shapes: frames (B, F, H, W, 3) uint8 of the model's size, mask (B, F) bool."""
    times = np.arange(0.0, CLIP_SECONDS, 1.0 / sampling.frames_per_second)
    times = times[spread(len(times), sampling.max_frames)]
    frames = np.zeros((NUM_REAL, sampling.max_frames, sampling.image_size, sampling.image_size, 3), np.uint8)
    for clip, scene in zip(frames, scenes(0, "test", NUM_REAL), strict=True):
        clip[: len(times)] = render(scene, times, sampling.image_size)
    mask = np.broadcast_to(np.arange(sampling.max_frames) < len(times), frames.shape[:2])
    return {"frames": frames, "frame_mask": mask.copy()}


def caption_inputs(tokenizer: Tokenizer, max_words: int) -> Arrays:
    """Tokenises captions of those clips: ids (B, T) int64, mask (B, T) bool."""
    rng = np.random.default_rng(0)
    texts = [captions(scene, rng)[0] for scene in scenes(0, "test", NUM_REAL)]
    batch = tokenizer.encode(texts, max_words)
    return {"token_ids": batch.ids, "token_mask": batch.mask}


def video_inputs(folder: Path | str, sampling: FrameSampling) -> Arrays:
    """Decodes clips of a user's own videos: frames (B, F, H, W, 3) uint8, mask (B, F) bool.

    Raises:
        ExportError: No video can be decoded.
    """
    folder = Path(folder)
    clips = decoded_clips(find_videos(folder)[:NUM_REAL], sampling, NUM_REAL)
    if clips is None:
        raise ExportError(f"{folder} holds no video that can be decoded; --samples takes a folder of videos")
    return clips


def decoded_clips(
    videos: Sequence[Path | str | tuple[Path | str, Stretch]], sampling: FrameSampling, most: int
) -> Arrays | None:
    """Decodes the first clips of videos.

    Args:
        videos: The videos, or parts of videos.
        sampling: Sampling of frames.
        most: Largest number of clips.

    Returns:
        Frames (B, F, H, W, 3) uint8 and mask (B, F) bool; None if no video can be decoded.
    """
    clips = [clip for video in decode_many(videos, sampling) for clip in video.clips][:most]
    if not clips:
        return None
    return {"frames": np.stack([clip.frames for clip in clips]), "frame_mask": np.stack([clip.mask for clip in clips])}
