"""Rendering scenes to pixels by signed distance functions, each on its thing's own box to keep it cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbi_training.data.shapes.scene import Backdrop, Scene, track

Array = NDArray[np.float32]


def render(
    scene: Scene, times_seconds: Sequence[float] | NDArray[np.float64], image_size: int = 96
) -> NDArray[np.uint8]:
    """Draws the frames of a scene at the given times, in any order and number.

    Args:
        scene: Scene to draw.
        times_seconds: Times (N,) within the clip.
        image_size: Height and width in pixels.

    Returns:
        RGB frames (N, H, W, 3) uint8; each depends only on the scene, its time and the size.
    """
    times = np.asarray(times_seconds, dtype=np.float64)
    frames = np.repeat(_background(scene.backdrop, image_size)[None], len(times), axis=0)
    for number in range(len(scene.things)):
        _draw(frames, scene, number, times)
    if scene.backdrop.bar:
        vertical, centre, width, grey = scene.backdrop.bar
        begin, end = (round((centre + side * width / 2) * image_size) for side in (-1, 1))
        frames[(..., slice(begin, end), slice(None)) if vertical else (slice(None), slice(begin, end))] = grey
    rng = np.random.default_rng(scene.backdrop.noise_seed)
    tile = rng.normal(0.5, scene.backdrop.noise, (2 * image_size, 2 * image_size, 1)).astype(np.float32)
    for frame, milliseconds in zip(frames, np.round(times * 1000).astype(np.int64), strict=True):
        # One tile of noise, cut at a place that depends on the time, is quick and gives each time the same noise.
        down, across = int(milliseconds) * 7919 % image_size, int(milliseconds) * 104729 % image_size
        frame += tile[down : down + image_size, across : across + image_size]
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _background(backdrop: Backdrop, image_size: int) -> Array:
    """Mixes the backdrop's two colours: (H, W, 3) float32, 0 to 255."""
    line = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size
    mixture: NDArray[np.floating[Any]]
    if backdrop.kind == "plain":
        mixture = np.zeros((image_size, image_size), dtype=np.float32)
    elif backdrop.kind == "vertical":
        mixture = np.broadcast_to(line[:, None], (image_size, image_size))
    elif backdrop.kind == "horizontal":
        mixture = np.broadcast_to(line, (image_size, image_size))
    else:
        cell = (line * backdrop.cells).astype(np.int64)
        if backdrop.kind == "checker":
            mixture = ((cell[:, None] + cell) % 2).astype(np.float32)
        else:  # clouds: random cells, interpolated
            grid = np.random.default_rng(backdrop.noise_seed + 1).random((backdrop.cells + 1,) * 2, dtype=np.float32)
            part = line * backdrop.cells - cell
            rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
            mixture = rows[:, cell] * (1 - part) + rows[:, cell + 1] * part
    dark, light = np.array(backdrop.dark, np.float32), np.array(backdrop.light, np.float32)
    return (dark + mixture[..., None] * (light - dark)).astype(np.float32)


def _draw(frames: Array, scene: Scene, number: int, times: NDArray[np.float64]) -> None:
    """Draws one thing over all frames, in place."""
    thing, states = scene.things[number], track(scene, number, times)
    image_size = frames.shape[1]
    rows = np.stack([states[name] for name in ("x", "y", "radius", "angle", "visible")], axis=1)
    kept, same = np.unique(rows, axis=0, return_inverse=True)  # a thing at rest is computed once
    x, y, radius, angle = kept[:, :4].T * np.array([[image_size], [image_size], [image_size], [np.pi / 180]])
    half = int(np.ceil(1.2 * radius.max(initial=0))) + 1
    left, top = np.floor(x).astype(np.int64) - half, np.floor(y).astype(np.int64) - half
    steps = np.arange(2 * half + 1) + 0.5
    # Pixel centres seen from the thing: (N, 1, K) across and (N, K, 1) down, in radii.
    across = ((left[:, None] + steps - x[:, None]) / radius[:, None]).astype(np.float32)[:, None, :]
    down = ((top[:, None] + steps - y[:, None]) / radius[:, None]).astype(np.float32)[:, :, None]
    cosine, sine = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    distance = _distance(thing.shape, cosine * across + sine * down, cosine * down - sine * across)
    cover = np.clip(0.5 - distance * radius.astype(np.float32)[:, None, None], 0, 1)[..., None]
    rgb = np.array(thing.rgb, np.float32)
    for frame, state in zip(frames, same.reshape(-1), strict=True):
        if kept[state, 4] == 0:
            continue
        row, column = max(top[state], 0), max(left[state], 0)
        patch = frame[row : top[state] + 2 * half + 1, column : left[state] + 2 * half + 1]
        alpha = cover[state, row - top[state] :, column - left[state] :][: patch.shape[0], : patch.shape[1]]
        patch += alpha * (rgb - patch)


def _distance(shape: str, x: Array, y: Array) -> Array:
    """Computes the signed distance to an outline in radii, negative inside, exact enough near it to smooth the edge.

    Args:
        shape: Name of the outline.
        x: Places across in radii, (N, K, K) float32.
        y: Places down in radii, (N, K, K) float32.
    """
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.86)
    if shape == "cross":
        x, y = np.abs(x), np.abs(y)
        return np.maximum(np.maximum(x, y) - np.float32(1.05), np.minimum(x, y) - np.float32(0.34))
    if shape == "triangle":
        y = y - np.float32(0.15)  # the middle of its height, not of its mass
        return np.maximum(np.float32(0.8660254) * np.abs(x) - np.float32(0.5) * y, y) - np.float32(0.62)
    distance = np.sqrt(x * x + y * y)
    if shape == "circle":
        return distance - np.float32(0.95)
    if shape == "ring":
        return np.abs(distance - np.float32(0.75)) - np.float32(0.25)
    # A star's angle is folded into half a point, whose one edge gives the distance.
    tip, notch, half_point = 1.15, 0.46, np.pi / 5
    fold = np.abs((np.arctan2(x, -y) + half_point) % (2 * half_point) - half_point)
    edge = np.array([notch * np.cos(half_point) - tip, notch * np.sin(half_point)])
    normal = (np.array([edge[1], -edge[0]]) / np.hypot(*edge)).astype(np.float32)
    return (distance * np.cos(fold) - np.float32(tip)) * normal[0] + distance * np.sin(fold) * normal[1]
