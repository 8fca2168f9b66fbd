"""Compares the exact Banzhaf interaction with sampled estimates: time and error.

    python benchmarks/banzhaf.py [--pairs 128] [--sampled-pairs 8] [--samples 100 1000]

The reference is the exact value in float64, which the tests compare with the enumeration of all coalitions. Sampling is
timed on `--sampled-pairs` of the pairs: its time grows with their number. Writes benchmarks/results/banzhaf.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from machine import write_result
from timing import timed

from hbi_infer.tokens import banzhaf as in_numpy
from hbi_training.banzhaf.exact import banzhaf_interaction
from hbi_training.banzhaf.sampled import Game, sampled_banzhaf_interaction

NUM_TEXT, NUM_VIDEO = 32, 12
REPEATS = 15


def random_game(num_pairs: int) -> Game:
    """Draws cosines of unit vectors that share a direction, as words and frames of a pair do; ragged lengths."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(num_pairs, 1, 16, generator=generator)
    text, video = (
        torch.nn.functional.normalize(shared + 1.5 * torch.randn(num_pairs, size, 16, generator=generator), dim=-1)
        for size in (NUM_TEXT, NUM_VIDEO)
    )
    masks = [
        torch.arange(size) < torch.randint(size // 2, size + 1, (num_pairs, 1), generator=generator)
        for size in (NUM_TEXT, NUM_VIDEO)
    ]
    weights = [
        (2 * torch.randn(mask.shape, generator=generator)).masked_fill(~mask, float("-inf")).softmax(-1)
        for mask in masks
    ]
    return Game(text @ video.mT, *weights, *masks)


def errors(estimate: torch.Tensor, exact: torch.Tensor) -> dict[str, float]:
    """Returns root mean square and largest difference, as parts of the largest value."""
    difference = (estimate.double() - exact).abs() / exact.abs().max()
    return {
        "error_root_mean_square": float(f"{difference.square().mean().sqrt():.3g}"),
        "error_largest": float(f"{difference.max():.3g}"),
    }


def measure(num_pairs: int, sampled_pairs: int, samples: list[int]) -> dict[str, Any]:
    """Measures times for `num_pairs` pairs, and errors."""
    game = random_game(num_pairs)
    arrays = [part.numpy() for part in game]
    exact = banzhaf_interaction(*(part.double() if part.is_floating_point() else part for part in game))
    rows: list[dict[str, Any]] = [
        {
            "method": "exact, PyTorch float32",
            "seconds": timed(lambda: banzhaf_interaction(*game), REPEATS)["median"],
            **errors(banzhaf_interaction(*game), exact),
        },
        {
            "method": "exact, NumPy float32",
            "seconds": timed(lambda: in_numpy.banzhaf_interaction(*arrays), REPEATS)["median"],
            **errors(torch.from_numpy(in_numpy.banzhaf_interaction(*arrays)), exact),
        },
    ]
    few = Game(*(part[:sampled_pairs] for part in game))
    generator = torch.Generator().manual_seed(1)
    for number in samples:
        started = time.perf_counter()
        estimate = sampled_banzhaf_interaction(few, num_samples=number, generator=generator)
        taken = (time.perf_counter() - started) * num_pairs / sampled_pairs
        rows.append(
            {"method": f"sampled, {number} coalitions", "seconds": taken, **errors(estimate, exact[:sampled_pairs])}
        )
    for row in rows:
        row["times_exact"] = round(row["seconds"] / rows[0]["seconds"], 2)
        row["seconds"] = float(f"{row['seconds']:.4g}")
    return {
        "pairs": num_pairs,
        "text_tokens": NUM_TEXT,
        "video_tokens": NUM_VIDEO,
        "sampled_pairs": sampled_pairs,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--sampled-pairs", type=int, default=8)
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 1000])
    options = parser.parse_args()
    result = measure(options.pairs, options.sampled_pairs, options.samples)
    for row in result["rows"]:
        print(row)
    print(f"written to {write_result('banzhaf', result)}")


if __name__ == "__main__":
    main()
