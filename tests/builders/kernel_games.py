"""Inputs of the kernels, and what NumPy makes of them in float64."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.kernels.definitions import BANZHAF_INTERACTION, TOKEN_MERGE, TOKEN_SIMILARITY, Element, Kernel
from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.levels import LevelTokens
from hbi_infer.tokens.similarity import similarity
from tests.builders.kernel_host import Arrays, rounded

TOLERANCES: dict[Element, float] = {"float32": 3e-6, "float16": 1e-3, "bfloat16": 8e-3}
"""Of the largest value: the rounding of what comes out, for what goes in is rounded on both sides."""


def ragged(rng: np.random.Generator, batch: int, size: int) -> npt.NDArray[np.bool_]:
    """(batch, size): from one real token to all of them; not only the last ones are padding."""
    mask = np.arange(size) < rng.integers(1, size + 1, (batch, 1))
    mask[0] = rng.permutation(mask[0])
    return mask


def interaction_inputs(seed: int, *, batch: int = 3, words: int = 9, frames: int = 5) -> Arrays:
    """Cosines of both signs, some of them equal, and weights of very different sizes."""
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(-1, 1, (batch, words, frames))
    cosines[-1] = np.round(2 * cosines[-1]) / 2
    return {
        "similarity": cosines,
        "text_weights": np.exp(2 * rng.normal(size=(batch, words))),
        "video_weights": np.exp(2 * rng.normal(size=(batch, frames))),
        "text_mask": ragged(rng, batch, words),
        "video_mask": ragged(rng, batch, frames),
    }


def merge_inputs(seed: int, *, batch: int = 3, tokens: int = 11, width: int = 40) -> Arrays:
    """Tokens about a few centres, so that there is something to group."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(batch, 4, width))
    near = np.take_along_axis(centres, rng.integers(0, 4, (batch, tokens))[:, :, None], 1)
    return {
        "tokens": near + rng.normal(size=(batch, tokens, width)),
        "score": 3 * rng.normal(size=(batch, tokens)),
        "mask": ragged(rng, batch, tokens),
    }


def similarity_inputs(seed: int, *, texts: int = 3, clips: int = 4, words: int = 6, frames: int = 5) -> Arrays:
    """Tokens of some length, with a direction in common; a weight of 0 is padding."""
    rng = np.random.default_rng(seed)
    width = 40
    common = rng.normal(size=width)
    inputs = {}
    for side, items, size in (("text", texts, words), ("video", clips, frames)):
        weights = np.exp(rng.normal(size=(items, size))) * ragged(rng, items, size)
        inputs[f"{side}_tokens"] = rng.normal(size=(items, size, width)) + common
        inputs[f"{side}_weights"] = weights / weights.sum(1, keepdims=True)
    return inputs


def in_element(kernel: Kernel, inputs: Arrays, element: Element) -> Arrays:
    """The inputs as far as a type holds them, in float32."""
    return {
        name: rounded(array, element) if kernel.inputs[name] == "element" else array.astype(kernel.inputs[name])
        for name, array in inputs.items()
    }


def expected(kernel: Kernel, inputs: Arrays, **attributes: Any) -> Arrays:
    """What NumPy computes in float64."""
    wide = {name: array if array.dtype == bool else array.astype(np.float64) for name, array in inputs.items()}
    if kernel is BANZHAF_INTERACTION:
        return {"interaction": banzhaf_interaction(*wide.values(), **attributes)}
    if kernel is TOKEN_SIMILARITY:
        text, video = (
            {"level": LevelTokens(wide[f"{side}_tokens"], wide[f"{side}_weights"])} for side in ("text", "video")
        )
        padded = "zero" if attributes.get("padding_is_zero") else "ignore"
        return {"scores": similarity(text, video, {"level": 1.0}, padded_partner=padded)}
    assert kernel is TOKEN_MERGE
    clips = [_merged(*clip, **attributes) for clip in zip(*wide.values(), strict=True)]
    return {name: np.stack(parts) for name, parts in zip(TOKEN_MERGE.outputs, zip(*clips, strict=True), strict=True)}


def _merged(
    tokens: npt.NDArray[Any],
    score: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_],
    *,
    num_slots: int,
    ratio: float,
    neighbours: int = 3,
) -> tuple[npt.NDArray[Any], ...]:
    """Tokens (N, D) of one clip, merged; written as the text of section 3.2 has it, over real tokens alone."""
    (real,) = np.nonzero(mask)
    apart = np.sqrt(((tokens[real, None] - tokens[None, real]) ** 2).mean(-1))
    nearest = np.sort(apart, axis=1)[:, :neighbours]
    density = np.exp(-(nearest**2).mean(1))
    ahead = [[_precedes(density, j, i) for j in range(len(real))] for i in range(len(real))]
    to_denser = np.where(ahead, apart, apart.max()).min(1)
    peak = density * to_denser
    ranked = sorted(range(len(real)), key=lambda token: (-peak[token], token))
    num_clusters = min(max(ceil(len(real) * ratio - 1e-6), 1), num_slots)
    centres = sorted(ranked[:num_clusters])
    slot = apart[centres].argmin(0)
    slot[centres] = np.arange(num_clusters)
    share = np.exp(score[real] - score[real].max())
    merged = np.zeros((num_slots, tokens.shape[1]))
    for place in range(num_clusters):
        mine = slot == place
        merged[place] = share[mine] @ tokens[real[mine]] / (share[mine].sum() + 1e-6)
    slots = np.full(len(tokens), -1, np.int64)
    slots[real] = slot
    return merged, np.arange(num_slots) < num_clusters, slots, np.where(mask, score, -np.inf)


def _precedes(values: npt.NDArray[Any], one: int, other: int) -> bool:
    return bool((-values[one], one) < (-values[other], other))


def assert_close(kernel: Kernel, found: Arrays, wanted: Arrays, element: Element) -> None:
    """All outputs: floats within the type's rounding, everything else the same."""
    assert list(found) == list(kernel.outputs)
    for name, kind in kernel.outputs.items():
        if kind in ("bool", "int64"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
            continue
        tolerance = TOLERANCES[element if kind == "element" else "float32"]
        finite = np.isfinite(wanted[name])
        np.testing.assert_array_equal(np.isfinite(found[name]), finite, err_msg=name)
        largest = max(np.abs(wanted[name][finite]).max(), 1e-6)
        np.testing.assert_allclose(
            found[name][finite], wanted[name][finite], rtol=0, atol=tolerance * largest, err_msg=name
        )
