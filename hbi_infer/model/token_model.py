"""The graphs of a bundle on a device: frames and texts in, tokens, scores, logits and captions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hbi_engines.cuda.driver import driver_problem
from hbi_engines.engine import Arrays, Engine
from hbi_engines.engine_files import BuiltEngines
from hbi_engines.registry import PROCESSOR_DEVICES, check_device, open_engine
from hbi_engines.time_limit import LIMIT_SECONDS
from hbi_infer.errors import BundleError, DeviceError, EngineError, InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.checked_graph import CheckedGraph
from hbi_infer.model.graph_names import GRAPHS
from hbi_infer.model.text_generation import Generated, generate
from hbi_infer.model.tokenizer import TokenBatch, Tokenizer
from hbi_infer.model.video_encoder import VideoEncoder, open_video_encoder
from hbi_infer.options import Decoding
from hbi_infer.tokens.levels import Levels, LevelTokens, joined, named_inputs, unit, unsound
from hbi_infer.tokens.similarity import Directions, fits, similarity_by_graph


class TokenModel:
    """A bundle ready to run. Each graph is loaded when it is first used, so that searching loads no video encoder.

    Args:
        bundle: The bundle to run.
        device: Name of the device; see `load`.
        threads: Number of threads; see `load`.
        limit_seconds: Limit of graphs; see `load`.
        open_graph: Opens the engine of a graph by its name, in place of the bundle's own graphs on a device.

    Attributes:
        bundle: The bundle that was loaded.
        scoring: How the bundle compares tokens.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        limit_seconds: float = LIMIT_SECONDS,
        open_graph: Callable[[str], Engine] | None = None,
    ) -> None:
        if open_graph is None:
            check_device(device)
        self.bundle = bundle
        self._open_graph = open_graph or partial(
            load_graph, bundle, device=device, threads=threads, limit_seconds=limit_seconds
        )
        self.scoring = bundle.manifest.scoring
        self._device = device

    @classmethod
    def load(
        cls,
        bundle: Path | str | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> Self:
        """Loads a bundle.

        Args:
            bundle: A bundle's folder or zip; by default the embedded model, which knows only coloured shapes.
            device: "auto", "cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"; some take a precision, as in
                "openvino:bf16". A device that cannot run here is an error, except for "auto".
            threads: Processor threads, by default one for each physical core.
            limit_seconds: Limit for loading a graph, and for running it once; a graph that is late is an error.

        Raises:
            BundleError: There is no bundle, or it cannot be used.
            DeviceError: The device is unknown or cannot run here.
        """
        loaded = Bundle.load(bundle or default_bundle_path())
        return cls(loaded, device=device, threads=threads, limit_seconds=limit_seconds)

    @property
    def device_reason(self) -> str:
        """One line that says on which device the graphs run, and why."""
        return self._text_encoder.device_reason

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the token ids of B texts; `TokenBatch.truncated` says where those that were too long were cut."""
        return self.tokenizer.encode(texts, self.bundle.manifest.max_words)

    def encode_text(self, texts: Sequence[str]) -> dict[str, LevelTokens]:
        """Computes the tokens of B texts, level by level."""
        return self.encode_tokens(self.tokenize(texts))

    def encode_tokens(self, batch: TokenBatch) -> dict[str, LevelTokens]:
        """Computes the tokens of B texts from their ids, level by level."""
        levels = self._by_level(self._text_encoder.run({"token_ids": batch.ids, "token_mask": batch.mask}))
        if fault := unsound(levels):
            raise EngineError(f"the graph text_encoder of {self.bundle.path} gives {fault}: use another bundle")
        return levels

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        """Computes the tokens of B clips, level by level.

        Args:
            frames: (B, F, H, W, 3) uint8, red, green, blue, with the size that `bundle.manifest.sampling` states.
            mask: (B, F) bool, True where there is a frame.

        Raises:
            EngineError: The arrays are of another shape or type.
        """
        parts = [
            self._by_level(self._video_encoder.run(frames[part], mask[part]))
            for part in batches(len(frames), self.bundle.manifest.batch_clips)
        ]
        return parts[0] if len(parts) == 1 else joined(parts)

    def similarity(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes the scores (Bt, Bv) float32 of Bt texts (or clips) with Bv clips.

        The bundle's graph computes them on a GPU, if there is one; NumPy, which no graph on the processor surpasses,
        does elsewhere.
        """
        if self._on_gpu and "similarity" in self.bundle.manifest.graphs and fits(self._similarity, text, video):
            return similarity_by_graph(self._similarity, text, video)
        return self.scoring.similarity(text, video)

    def rerank(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes the scores (B,) float32 of B pairs by their reconstructed tokens, which know of each other.

        One text may be paired with any number of clips, and one clip with any number of texts.

        Raises:
            BundleError: The bundle has no reconstruction.
            InputError: The numbers of texts and clips do not fit together.
        """
        scores: npt.NDArray[np.float32] = self._reranker.run(_side_by_side(text, video))["score"]
        return scores

    def answer_logits(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes logits (B, A) float32 of the A answers `bundle.manifest.answers` to B questions about B clips.

        Their softmax is calibrated: it is the probability that the answer is right. One question may be paired with
        any number of clips, and one clip with any number of questions.

        Raises:
            BundleError: The bundle cannot answer questions.
            InputError: The numbers of questions and clips do not fit together.
        """
        logits: npt.NDArray[np.float32] = self._answerer.run(_side_by_side(text, video))["logits"]
        return logits

    def write_captions(self, video: Levels, options: Decoding | None = None) -> list[Generated]:
        """Writes a text for each of B clips, as token ids; `tokenizer.decode` makes it readable.

        Args:
            video: The clips' tokens.
            options: How to choose words.

        Raises:
            BundleError: The bundle writes no captions.
        """
        tokenizer = self.tokenizer
        within = (options or Decoding()).within(self.bundle.manifest.max_words)
        decoder = self._caption_decoder
        logits, state = decoder.begin(video)
        return generate(decoder, logits, state, within, end_id=tokenizer.eot_id, forbidden=[tokenizer.sot_id])

    def interaction(self, text: Levels, video: Levels) -> dict[str, npt.NDArray[np.float32]]:
        """Computes the exact Banzhaf interaction of B pairs of a text and a clip.

        One text may be paired with any number of clips, and one clip with any number of texts. NumPy computes it if the
        bundle has no graph for it.

        Returns:
            Level name -> (B, T, V) float32.

        Raises:
            InputError: The numbers of texts and clips do not fit together.
        """
        pairs = _side_by_side(text, video)
        if "interaction" in self.bundle.manifest.graphs:
            made = self._interaction.run(pairs)
            return {level: made[f"{level}_interaction"] for level in self.scoring.rates}
        return {level: _numpy_interaction(pairs, level, self.scoring.directions) for level in self.scoring.rates}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the bundle."""
        manifest, path = self.bundle.manifest, self.bundle.path / self.bundle.manifest.tokenizer.file
        text = self.bundle.tokenizer_json()
        try:
            tokenizer = Tokenizer.from_json(text)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        if tokenizer.vocabulary_size > manifest.vocabulary_size:
            raise BundleError(
                f"{path} has {tokenizer.vocabulary_size:,} tokens and the model knows {manifest.vocabulary_size:,}: "
                "export the bundle again"
            )
        return tokenizer

    @cached_property
    def _text_encoder(self) -> Engine:
        return self._open("text_encoder")

    @cached_property
    def _video_encoder(self) -> VideoEncoder:
        manifest = self.bundle.manifest
        batch_frames = manifest.batch_clips * manifest.sampling.max_frames
        return open_video_encoder(manifest.graphs, self._open, batch_frames)

    @cached_property
    def _reranker(self) -> Engine:
        return self._open("reranker")

    @cached_property
    def _answerer(self) -> Engine:
        return self._open("answerer")

    @cached_property
    def _caption_decoder(self) -> CaptionDecoder:
        return CaptionDecoder(self._open("captioner_prefill"), self._open("captioner_step"))

    @cached_property
    def _similarity(self) -> Engine:
        return self._open("similarity")

    @cached_property
    def _on_gpu(self) -> bool:
        if self._device == "auto":  # asked only where there is a GPU, for it loads a graph
            return not driver_problem() and self._text_encoder.device not in PROCESSOR_DEVICES
        return self._device not in PROCESSOR_DEVICES

    @cached_property
    def _interaction(self) -> Engine:
        return self._open("interaction")

    def _open(self, name: str) -> Engine:
        return CheckedGraph(
            self._open_graph(name),
            f"the graph {name} of {self.bundle.path}",
            self.bundle.manifest.graphs[name].outputs,
            GRAPHS[name].output_names(self.scoring.rates),
            # `unsound` looks at tokens: one video may be at fault, which costs the others nothing.
            may_be_not_finite=GRAPHS[name].task == "retrieve",
        )

    def _by_level(self, made: Arrays) -> dict[str, LevelTokens]:
        return {
            level: LevelTokens(made[f"{level}_tokens"], made[f"{level}_weights"], made.get(f"{level}_slots"))
            for level in self.scoring.rates
        }


def batches(count: int, most: int) -> list[slice]:
    """Returns the places of `count` items in batches of `most`; one batch if there are none.

    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    return [slice(start, start + most) for start in range(0, max(count, 1), most)]


def load_graph(
    bundle: Bundle,
    name: str,
    device: str = "auto",
    threads: int | None = None,
    *,
    limit_seconds: float = LIMIT_SECONDS,
) -> Engine:
    """Loads a graph of a bundle; see `hbi_engines.registry.open_engine`.

    Raises:
        BundleError: The bundle has no such graph, or the file is not the one that was exported.
        DeviceError: The device is unknown or cannot run here.
        EngineError: The runtime refused the graph.
    """
    content = bundle.graph_bytes(name)
    try:
        return open_engine(content, device, threads, BuiltEngines(bundle.path, name), limit_seconds=limit_seconds)
    except DeviceError:
        raise
    except EngineError as error:
        if bundle.manifest.graphs[name].precision != "bf16":
            raise EngineError(f"the graph {name} of {bundle.path}: {error}") from error
        raise EngineError(
            f"{name} of {bundle.path} is in bf16, which device {device} does not compute: use --device openvino or a "
            f"GPU, or a bundle in another precision ({error})"
        ) from error


def _side_by_side(text: Levels, video: Levels) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the inputs of graphs on pairs of tokens; a single text or clip goes with each item of the other side."""
    sizes = [len(next(iter(side.values()))) for side in (text, video)]
    if len({*sizes} - {1}) > 1:
        raise InputError(f"there are {sizes[0]} texts and {sizes[1]} clips; give as many of both, or one of either")
    return {
        name: array if len(array) == max(sizes) else array.repeat(max(sizes), 0)
        for side, levels in (("text", text), ("video", video))
        for name, array in named_inputs(side, levels).items()
    }


def _numpy_interaction(pairs: Arrays, level: str, directions: Directions) -> npt.NDArray[np.float32]:
    from hbi_infer.tokens.banzhaf import banzhaf_interaction

    text, video = (unit(pairs[f"{side}_{level}_tokens"]) for side in ("text", "video"))
    weights = [pairs[f"{side}_{level}_weights"] for side in ("text", "video")]
    masks = [part > 0 for part in weights]
    cosines = text @ video.transpose(0, 2, 1)
    exact: npt.NDArray[np.float32] = banzhaf_interaction(cosines, *weights, *masks, directions=directions)
    return exact
