"""Inputs to check a graph with: random ones, real pictures with real captions, and videos that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hbi_export.graphs.modules import Arrays, TracedGraph
from hbi_infer.errors import ExportError
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import FrameSampling
from hbi_infer.video.discovery import find_videos
from hbi_infer.video.pool import decode_many
from hbi_infer.video.sampling import spread
from hbi_training.data.shapes import captions, render, scenes
from hbi_training.data.shapes.scene import CLIP_SECONDS
from hbi_training.model.caption_decoder import CaptionDecoder
from hbi_training.model.config import LEVELS, HBIConfig

NUM_RANDOM, NUM_REAL = 4, 16


def random_video_inputs(sampling: FrameSampling) -> Arrays:
    """Noise, with clips of every length from one frame to F."""
    rng = np.random.default_rng(0)
    size, most = sampling.image_size, sampling.max_frames
    lengths = np.linspace(1, most, NUM_RANDOM).astype(int)
    frames = rng.integers(0, 256, (NUM_RANDOM, most, size, size, 3), dtype=np.uint8)
    return {"frames": frames, "frame_mask": np.arange(most) < lengths[:, None]}


def random_text_inputs(vocabulary_size: int, max_words: int) -> Arrays:
    """Ids drawn from the whole vocabulary, with texts of every length from two tokens to L."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(2, max_words, NUM_RANDOM).astype(int)
    ids = rng.integers(0, vocabulary_size, (NUM_RANDOM, max_words))
    return {"token_ids": ids, "token_mask": np.arange(max_words) < lengths[:, None]}


def random_token_inputs(config: HBIConfig) -> Arrays:
    """Tokens and weights of texts and videos at every level, with one token to all of them real."""
    rng = np.random.default_rng(0)
    inputs: Arrays = {}
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
    """The same of real texts and videos: what the two encoders gave."""
    return {
        f"{side}_{level}_{part}": given[f"{level}_{part}"]
        for side, given in (("text", texts), ("video", videos))
        for level in LEVELS
        for part in ("tokens", "weights")
    }


def fewer_texts(inputs: Arrays) -> Arrays:
    """The same without the first text: as many of neither side."""
    return {name: array[1:] if name.startswith("text") else array for name, array in inputs.items()}


def caption_step_inputs(prefill: TracedGraph, step: TracedGraph, video: Arrays) -> dict[str, Arrays]:
    """Random words behind one another: the inputs at the first, the second, a middle and the last place of a caption.

    Args:
        prefill: The captioner's first graph; its module gives the state behind the start.
        step: Its second graph, whose module adds the words.
        video: What the first graph takes.
    """
    rng = np.random.default_rng(0)
    state = prefill.eager(video)
    num_items, vocabulary_size = state["logits"].shape
    decoder = step.module.decoder
    assert isinstance(decoder, CaptionDecoder)
    last = decoder.max_tokens - 1
    sets = {}
    for place in range(1, last + 1):
        ids = rng.integers(0, vocabulary_size, (num_items,))
        past = {f"past_{part}": state[f"present_{part}"] for part in ("keys", "values")}
        inputs = {"token_ids": ids, **{name: state[name] for name in step.input_names if name in state}, **past}
        if place in (1, 2, last // 2, last):
            sets[f"word {place}"] = inputs
        state |= step.eager(inputs)
    return sets


def drawn_video_inputs(sampling: FrameSampling) -> Arrays:
    """Clips of moving shapes, drawn at the model's size."""
    times = np.arange(0.0, CLIP_SECONDS, 1.0 / sampling.frames_per_second)
    times = times[spread(len(times), sampling.max_frames)]
    frames = np.zeros((NUM_REAL, sampling.max_frames, sampling.image_size, sampling.image_size, 3), np.uint8)
    for clip, scene in zip(frames, scenes(0, "test", NUM_REAL), strict=True):
        clip[: len(times)] = render(scene, times, sampling.image_size)
    mask = np.broadcast_to(np.arange(sampling.max_frames) < len(times), frames.shape[:2])
    return {"frames": frames, "frame_mask": mask.copy()}


def caption_inputs(tokenizer: Tokenizer, max_words: int) -> Arrays:
    """Captions of those clips."""
    rng = np.random.default_rng(0)
    texts = [captions(scene, rng)[0] for scene in scenes(0, "test", NUM_REAL)]
    batch = tokenizer.encode(texts, max_words)
    return {"token_ids": batch.ids, "token_mask": batch.mask}


def video_inputs(folder: Path, sampling: FrameSampling) -> Arrays:
    """Clips of a user's own videos.

    Raises:
        ExportError: Not one of them can be decoded.
    """
    clips = decoded_clips(find_videos(folder)[:NUM_REAL], sampling, NUM_REAL)
    if clips is None:
        raise ExportError(f"{folder} holds no video that can be decoded; --samples takes a folder of videos")
    return clips


def decoded_clips(paths: Sequence[Path], sampling: FrameSampling, most: int) -> Arrays | None:
    """The first clips of videos, `most` at most; None if not one can be decoded."""
    clips = [clip for video in decode_many(paths, sampling) for clip in video.clips][:most]
    if not clips:
        return None
    return {"frames": np.stack([clip.frames for clip in clips]), "frame_mask": np.stack([clip.mask for clip in clips])}
