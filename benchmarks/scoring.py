"""Compares scoring one query against many clips with the bare matrix products that it rests on.

    python benchmarks/scoring.py [--clips 100000]

The bare product of a level is its tokens (V * clips, D) times the query's (T, D), transposed, and nothing else, in
threads that take a part of the clips each. Both are timed in turn, so that a busy machine harms them alike. Writes
benchmarks/results/scoring.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from machine import write_result
from synthetic_tokens import LEVELS

from hbi_engines.operating_system import usable_cpus
from hbi_infer.tokens.layout import TokenLayout, widen
from hbi_infer.tokens.levels import Levels, LevelTokens, unit
from hbi_infer.tokens.parallel import multiply_in_parts
from hbi_infer.tokens.similarity import ClipMatrix

BLOCK_CLIPS = 5000
REPEATS = 15


def random_levels(rng: np.random.Generator, batch: int, sizes: dict[str, int], width: int) -> Levels:
    """Draws tokens (B, N, D) float32 without padding, N by the level's name."""
    return {
        name: LevelTokens(
            rng.standard_normal((batch, size, width), dtype=np.float32), np.full((batch, size), 1 / size, np.float32)
        )
        for name, size in sizes.items()
    }


def seconds(function: Callable[[], object]) -> float:
    """Returns the time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(num_clips: int, width: int) -> dict[str, Any]:
    """Measures scoring, the bare product, and the cast to float32 that comes before."""
    rng = np.random.default_rng(0)
    layout = TokenLayout(tuple((level.name, level.video_tokens) for level in LEVELS), width)
    # The same clips are repeated: only their number matters.
    block = layout.pack(random_levels(rng, min(BLOCK_CLIPS, num_clips), dict(layout.levels), width))
    query = random_levels(rng, 1, {level.name: level.text_tokens for level in LEVELS}, width)
    num_blocks = num_clips // len(block)
    matrix = ClipMatrix(layout, {level.name: level.rate for level in LEVELS}, num_blocks * len(block))
    for number in range(num_blocks):
        matrix.extend(np.arange(len(block)) + number * len(block), block)
    units = {name: unit(level.tokens[0]).T for name, level in query.items()}
    tokens = {
        name: np.tile(block["tokens"][:, part].reshape(-1, width).astype(np.float32), (num_blocks, 1))
        for name, part in layout.slices.items()
    }
    products = {name: np.empty((len(tokens[name]), units[name].shape[1]), np.float32) for name in tokens}

    def bare() -> None:
        for name, product in products.items():
            multiply_in_parts(tokens[name], units[name], product)

    times = [(seconds(bare), seconds(lambda: matrix.score(query))) for _ in range(REPEATS)]
    bare_seconds, score_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    half, wide = block["tokens"], np.empty(block["tokens"].shape, np.float32)
    cast = min(seconds(lambda: np.copyto(wide, half)) for _ in range(3)) * num_blocks
    widened = min(seconds(lambda: widen(half, wide)) for _ in range(3)) * num_blocks
    return {
        "clips": num_blocks * len(block),
        "width": width,
        "video_tokens": dict(layout.levels),
        "text_tokens": {level.name: level.text_tokens for level in LEVELS},
        "repeats": REPEATS,
        "bare_product_seconds": round(bare_seconds, 4),
        "score_seconds": round(score_seconds, 4),
        "ratio": round(score_seconds / bare_seconds, 3),
        "ratio_of_the_fastest": round(min(t[1] for t in times) / min(t[0] for t in times), 3),
        "float16_cast_by_numpy_seconds": round(cast, 3),
        "float16_cast_by_widen_seconds": round(widened, 3),
    }


def main() -> None:
    """Measures at two widths and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100_000)
    num_clips = parser.parse_args().clips
    rows = [measure(num_clips, width) for width in (256, 512)]
    path = write_result("scoring", {"threads": len(usable_cpus()), "rows": rows})
    for row in rows:
        print(row)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
