"""Clips that no training set shows: textures and heaps of random pieces, still, moving or shaking.

They stand for everything that a model does not know. Their statistics are those of photographs (spectra that fall with
the frequency, pieces that cover each other), so that what separates a training set from them separates it from
videos of other kinds too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hbi_infer.options import FrameSampling

Picture = npt.NDArray[np.float32]

MARGIN = 1.4
"""Side of the picture that a clip is cut out of, in frames."""


def strange_clips(sampling: FrameSampling, num: int, seed: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields `num` clips (F, H, W, 3) uint8; the same seed gives the same ones."""
    for number in range(num):
        yield _clip(np.random.default_rng([seed, number]), sampling.image_size, sampling.max_frames)


def _clip(rng: np.random.Generator, size: int, num_frames: int) -> npt.NDArray[np.uint8]:
    """Draws a clip (F, H, W, 3) uint8: a part of a picture that moves, perhaps with a piece of another one over it."""
    whole = round(size * MARGIN)
    picture = _picture(rng, whole)
    for _ in range(rng.integers(0, 4)):
        picture = _blurred(picture)
    piece = _picture(rng, whole)[: size // 2, : rng.integers(size // 5, size // 2)] if rng.random() < 0.5 else None
    speed = rng.normal(0, size * rng.choice([0.0, 0.01, 0.04, 0.1]), 2)
    piece_at, piece_speed = rng.uniform(0, size / 2, 2), rng.normal(0, 0.06 * size, 2)
    shake = rng.choice([0.0, 0.005]) * size
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    for number in range(num_frames):
        offset = (whole - size) / 2 + speed * (number - num_frames / 2) + rng.normal(0, 1, 2) * shake
        top, left = np.clip(offset, 0, whole - size).astype(int)
        frame = picture[top : top + size, left : left + size].copy()
        if piece is not None:
            down, right = np.clip(piece_at + piece_speed * number, 0, size - 2).astype(int)
            part = frame[down : down + piece.shape[0], right : right + piece.shape[1]]
            part[:] = piece[: part.shape[0], : part.shape[1]]
        frames[number] = np.clip(frame * rng.normal(1, 0.02), 0, 255)
    return frames


def _picture(rng: np.random.Generator, size: int) -> Picture:
    """Draws a picture (H, W, 3), 0 to 255: a heap of pieces on a texture, or the texture alone."""
    picture = _texture(rng, size)
    return _heap(rng, picture) if rng.random() < 0.65 else picture


def _texture(rng: np.random.Generator, size: int) -> Picture:
    """Draws noise (H, W, 3) whose spectrum falls with the frequency, from fine grain to clouds."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(3, size, size))) / frequency ** rng.uniform(0.7, 2.2)
    noise = np.fft.ifft2(spectrum).real
    noise = (noise - noise.mean(axis=(1, 2), keepdims=True)) / noise.std(axis=(1, 2), keepdims=True)
    mixing = rng.normal(0, 0.35, (3, 3)) + rng.uniform(0, 1)
    mixed = np.einsum("ij,jhw->hwi", mixing, noise)
    levels = rng.uniform(50, 190) + rng.uniform(15, 70) * mixed / max(float(mixed.std()), 1e-6)
    return np.clip(levels, 0, 255).astype(np.float32)


def _heap(rng: np.random.Generator, picture: Picture) -> Picture:
    """Covers a picture (H, W, 3) with ellipses and boxes of few colours, many small and some large."""
    size = len(picture)
    down, right = np.mgrid[:size, :size]
    colours = rng.uniform(0, 255, (rng.integers(2, 8), 3))
    for _ in range(rng.integers(5, 60)):
        radius = size * min(0.6, 0.02 * rng.pareto(1.2) + 0.02)
        angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.4, 2.5)
        y, x = rng.uniform(0, size, 2)
        along = ((right - x) * np.cos(angle) + (down - y) * np.sin(angle)) / radius
        across = ((down - y) * np.cos(angle) - (right - x) * np.sin(angle)) * flatness / radius
        inside = np.maximum(abs(along), abs(across)) < 1 if rng.random() < 0.5 else along**2 + across**2 < 1
        colour = colours[rng.integers(len(colours))] + rng.normal(0, 20, 3)
        shade = 1 + rng.uniform(-0.4, 0.4) * along[inside]
        grain = rng.normal(0, rng.uniform(0, 15), (int(inside.sum()), 1))
        picture[inside] = np.clip(shade[:, None] * colour + grain, 0, 255)
    return picture


def _blurred(picture: Picture) -> Picture:
    shifted = [np.roll(picture, step, axis) for axis in (0, 1) for step in (-1, 1)]
    blurred: Picture = (picture + sum(shifted)) / np.float32(5)
    return blurred
