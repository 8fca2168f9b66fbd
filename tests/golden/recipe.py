"""Weights and inputs of the golden numbers: each tensor is a function of its released name and its shape alone.

Normal numbers from NumPy's legacy generator, which gives the same on every machine and in every version, seeded by the
checksum of the name; the spread keeps activations of every layer at a sensible size. No weights need to be stored.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

SEED = 0x48424921
Shape = tuple[int, ...]


def tensor(name: str, shape: Shape) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
    """The tensor that a checkpoint has under this name.

    >>> tensor("clip.logit_scale", ())
    array(2.6592600, dtype=float32)
    """
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "logit_scale":
        return np.full(shape, math.log(1 / 0.07), np.float32)
    mean, deviation = spread(name, shape)
    numbers = drawn(name, shape)
    return (mean + deviation * (np.abs(numbers) if last == "running_var" else numbers)).astype(np.float32)


def spread(name: str, shape: Shape) -> tuple[float, float]:
    """Mean and deviation of a tensor's numbers."""
    last = name.rpartition(".")[2]
    if last in ("bias", "in_proj_bias"):
        return 0.0, 0.02
    if name.endswith("token_embedding.weight"):
        return 0.0, 0.5
    if last in ("class_embedding", "positional_embedding") or name.endswith("frame_position_embeddings.weight"):
        return 0.0, 0.1
    if last in ("running_mean", "running_var"):
        return float(last == "running_var"), 0.1
    if last in ("proj", "text_projection", "Q", "K", "V"):  # used as x @ P
        return 0.0, 1.0 / math.sqrt(shape[0])
    if last == "weight" and len(shape) == 1:  # of a normalisation
        return 1.0, 0.1
    gain = 1.0
    if "banzhaf" in name or name.startswith("cnn"):
        gain = 3.0
    if last == "in_proj_weight" or ("weight_fc" in name and name.endswith("2.weight")):
        gain = 2.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def video(tag: str, batch: int, num_frames: int, size: int) -> npt.NDArray[np.float32]:
    """Clips (B, F, 3, H, W) as they are after normalisation: 7 x 7 blocks of colour, and noise on each pixel."""
    generator = seeded(f"video/{tag}")
    frames = generator.standard_normal((batch, num_frames, 3, 7, 7))
    common = generator.standard_normal((batch, 1, 3, 7, 7))
    block = (np.arange(size) * 7) // size
    pixels = (frames + 0.3 * common)[..., block, :][..., :, block]
    return (pixels + 0.25 * generator.standard_normal(pixels.shape)).astype(np.float32)


def drawn(name: str, shape: Shape) -> npt.NDArray[np.float64]:
    """Standard normal numbers that belong to a name."""
    return np.asarray(seeded(name).standard_normal(shape))


def seeded(name: str) -> np.random.RandomState:
    """A generator that belongs to a name."""
    return np.random.RandomState(zlib.crc32(name.encode()) ^ SEED)
