"""Measures tokens a second of writing captions: with the cache, without it, and by transformers' `generate`.

    python benchmarks/captioning.py [--bundle PATH] [--batches 1 32] [--beams 1 4] [--tokens 20] [--repeats 9]

Three decoders of the same numbers of layers, heads, tokens to attend to and words to choose from:

- cached: the two graphs of the bundle, in ONNX Runtime, as `hbi-infer caption` runs them;
- uncached: the same decoder as one graph over all words so far, in ONNX Runtime too, decoded by the same code. The
  memory of the video is kept, so that only the words are computed anew;
- transformers: `generate` of a GPT-2 with cross-attention, in PyTorch, with its own cache.

Every caption has as many tokens as asked for: the end is never written. A beam's tokens are those of the captions that
come out, not of all candidates. Without --bundle, the embedded one is measured. Writes
benchmarks/results/captioning.json.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write_result
from timing import timed
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from hbi_engines.engine import Arrays, Engine
from hbi_engines.operating_system import physical_cores
from hbi_engines.registry import open_engine
from hbi_export.graphs.modules import trace
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.text_generation import Decoder, Floats, Ids, generate
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import Decoding
from hbi_infer.tokens.levels import Levels, LevelTokens, unit
from hbi_training.model import caption_decoder as eager


@dataclass(frozen=True)
class Sizes:
    """Sizes of a bundle's caption decoder."""

    layers: int
    heads: int
    head_width: int
    video_tokens: int
    vocabulary: int
    max_tokens: int

    @property
    def width(self) -> int:
        """Width D."""
        return self.heads * self.head_width

    @classmethod
    def of(cls, bundle: Bundle) -> Sizes:
        """Reads the sizes from the graph that reads a video."""
        outputs = {spec.name: spec.shape for spec in bundle.manifest.graphs["captioner_prefill"].outputs}
        _, layers, heads, video_tokens, head_width = outputs["memory_keys"]
        sizes = (layers, heads, head_width, video_tokens, outputs["logits"][1])
        return cls(*(int(size) for size in sizes), bundle.manifest.max_words)


class WholePrefixGraph(nn.Module):
    """All words so far (N, T) and the memory of the video -> logits (N, A) of the next word."""

    def __init__(self, decoder: eager.CaptionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_ids: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Returns logits (N, A) for words (N, T); the arguments are in the order of the graph's inputs."""
        return {"logits": self.decoder(token_ids, eager.Memory(keys, values, mask))[:, -1]}


@dataclass(frozen=True)
class Prefix:
    """All words of N captions (N, T), and the memories of their videos."""

    ids: Ids
    memory: Arrays


class UncachedDecoder:
    """Decoder that reads all words anew for each new one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def step(self, token_ids: Ids, state: Prefix) -> tuple[Floats, Prefix]:
        """Appends tokens (N,) and returns the logits (N, A) of the next ones."""
        ids = np.concatenate([state.ids, token_ids[:, None]], axis=1)
        return self._engine.run({"token_ids": ids, **state.memory})["logits"], Prefix(ids, state.memory)

    def select(self, state: Prefix, rows: Ids) -> Prefix:
        """Returns the captions of the given rows (N,)."""
        return Prefix(state.ids[rows], {name: array[rows] for name, array in state.memory.items()})


def uncached_engine(sizes: Sizes, threads: int) -> Engine:
    """Opens a graph over all words with random weights."""
    torch.manual_seed(0)
    decoder = eager.CaptionDecoder(
        width=sizes.width,
        vocabulary_size=sizes.vocabulary,
        layers=sizes.layers,
        heads=sizes.heads,
        max_tokens=sizes.max_tokens,
    )
    memory = torch.zeros(2, sizes.layers, sizes.heads, sizes.video_tokens, sizes.head_width)
    inputs = {
        "token_ids": torch.ones(2, 4, dtype=torch.int64),
        "memory_keys": memory,
        "memory_values": memory,
        "memory_mask": torch.ones(2, sizes.video_tokens, dtype=torch.bool),
    }
    length = torch.export.Dim("num_words", min=2, max=sizes.max_tokens)
    return open_engine(trace(WholePrefixGraph(decoder), inputs, {"token_ids": {1: length}}).content, "cpu", threads)


def random_clips(bundle: Bundle, batch: int) -> Levels:
    """Draws unit tokens (B, V, D) float32 of `batch` clips."""
    random = np.random.default_rng(0)
    width = bundle.manifest.width
    return {
        level.name: LevelTokens(
            unit(random.standard_normal((batch, level.video_tokens, width), np.float32)),
            np.full((batch, level.video_tokens), 1 / level.video_tokens, np.float32),
        )
        for level in bundle.manifest.levels
    }


class Writers:
    """Three decoders, ready to write captions.

    Args:
        bundle: Bundle with a caption decoder.
        num_tokens: Length of each caption.
        threads: Processor threads of each runtime.
    """

    def __init__(self, bundle: Bundle, num_tokens: int, threads: int) -> None:
        self.bundle = bundle
        self.num_tokens = num_tokens
        self.sizes = sizes = Sizes.of(bundle)
        if num_tokens >= sizes.max_tokens:
            raise SystemExit(f"--tokens is {num_tokens}; the decoder has places for fewer than {sizes.max_tokens}")
        tokenizer = Tokenizer.from_json(bundle.tokenizer_json())
        self.start, self.end = tokenizer.sot_id, tokenizer.eot_id
        graphs = (bundle.graph_bytes(name) for name in ("captioner_prefill", "captioner_step"))
        self.cached = CaptionDecoder(*(open_engine(graph, "cpu", threads) for graph in graphs))
        self.uncached = UncachedDecoder(uncached_engine(sizes, threads))
        torch.set_num_threads(threads)
        config = GPT2Config(
            vocab_size=sizes.vocabulary,
            n_positions=sizes.max_tokens,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            add_cross_attention=True,
            bos_token_id=self.start,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        self.gpt2 = GPT2LMHeadModel(config).eval()

    def with_cache(self, clips: Levels, beam: int) -> None:
        """Writes captions as the product does."""
        self._write(self.cached, *self.cached.begin(clips), beam)

    def without_cache(self, clips: Levels, beam: int) -> None:
        """Writes captions, reading all words anew for each new one."""
        logits, state = self.cached.begin(clips)
        ids = np.full((len(logits), 1), self.start)
        self._write(self.uncached, logits, Prefix(ids, state.memory), beam)

    @torch.inference_mode()
    def by_transformers(self, clips: Levels, beam: int) -> None:
        """Writes captions with `generate`, attending to the same tokens."""
        tokens = torch.from_numpy(np.concatenate([level.tokens for level in clips.values()], axis=1))
        made = self.gpt2.generate(
            torch.full((len(tokens), 1), self.start),
            attention_mask=torch.ones(len(tokens), 1, dtype=torch.int64),
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones(tokens.shape[:2], dtype=torch.int64),
            min_new_tokens=self.num_tokens,
            max_new_tokens=self.num_tokens,
            num_beams=beam,
            do_sample=False,
        )
        assert made.shape == (len(tokens), self.num_tokens + 1)

    def _write(self, decoder: Decoder[Any], logits: Floats, state: Any, beam: int) -> None:
        options = Decoding(max_tokens=self.num_tokens, beam_size=beam)
        forbidden = [self.start, self.end]
        texts = generate(decoder, logits, state, options, end_id=self.end, forbidden=forbidden)
        assert all(len(text.token_ids) == self.num_tokens for text in texts)


def measure(bundle: Bundle, batches: list[int], beams: list[int], num_tokens: int, repeats: int) -> dict[str, Any]:
    """Measures tokens a second of each decoder, for each batch and beam."""
    threads = physical_cores()
    writers = Writers(bundle, num_tokens, threads)
    ways = {"cached": writers.with_cache, "uncached": writers.without_cache, "transformers": writers.by_transformers}
    rows = []
    for batch in batches:
        clips = random_clips(bundle, batch)
        for beam in beams:
            row: dict[str, Any] = {"batch": batch, "beam": beam}
            for name, write in ways.items():
                taken = timed(lambda write=write, clips=clips, beam=beam: write(clips, beam), repeats)
                speed = round(batch * num_tokens / taken["median"], 1)
                row[name] = {"tokens_per_second": speed, "seconds": taken}
            for name in ("uncached", "transformers"):
                row[f"times_{name}"] = round(row[name]["seconds"]["median"] / row["cached"]["seconds"]["median"], 2)
            rows.append(row)
    return {
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "decoder": vars(writers.sizes),
        "tokens": num_tokens,
        "threads": threads,
        "rows": rows,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    bundle.require("caption")
    result = measure(bundle, options.batches, options.beams, options.tokens, options.repeats)
    for row in result["rows"]:
        speeds = ", ".join(
            f"{way} {row[way]['tokens_per_second']:,.0f}" for way in ("cached", "uncached", "transformers")
        )
        print(f"batch {row['batch']}, beam {row['beam']}: tokens a second {speeds}")
    print(write_result("captioning", result))


if __name__ == "__main__":
    main()
