"""The model: frames and texts in, tokens and scores out, from a bundle on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_engines.cuda.driver import driver_problem
from hbi_engines.engine import Arrays, Engine
from hbi_engines.engine_files import BuiltEngines
from hbi_engines.registry import PROCESSOR_DEVICES, check_device, open_engine
from hbi_infer.errors import BundleError, DeviceError, EngineError, InputError
from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_infer.model.caption_decoder import CaptionDecoder
from hbi_infer.model.graph_names import GRAPHS
from hbi_infer.model.text_generation import Generated, generate
from hbi_infer.model.tokenizer import TokenBatch, Tokenizer
from hbi_infer.options import Answering, Decoding
from hbi_infer.tokens.levels import Levels, LevelTokens, named_inputs, unit
from hbi_infer.tokens.similarity import fits, similarity, similarity_by_graph

if TYPE_CHECKING:
    from hbi_infer.index.folder_index import Index
    from hbi_infer.index.update import IndexProgress
    from hbi_infer.tasks.caption import Caption
    from hbi_infer.tasks.explain import Explanation
    from hbi_infer.tasks.qa import Answer
    from hbi_infer.tasks.search import CaptionMatch, Match


class HBI:
    """A bundle ready to run. Each graph is loaded when it is first used, so that searching loads no video encoder.

    Args:
        bundle: What is to run.
        device: See `load`.
        threads: See `load`.
        open_graph: Name of a graph -> what runs it, in place of the bundle's own graphs on a device.

    Attributes:
        bundle: What was loaded.
        rates: Level name -> what its similarity is multiplied with in the score.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        open_graph: Callable[[str], Engine] | None = None,
    ) -> None:
        if open_graph is None:
            check_device(device)
        self.bundle = bundle
        self._open_graph = open_graph or partial(load_graph, bundle, device=device, threads=threads)
        self.rates = {level.name: level.rate for level in bundle.manifest.levels}
        self._device = device

    @classmethod
    def load(cls, bundle: Path | str | None = None, *, device: str = "auto", threads: int | None = None) -> HBI:
        """Load a bundle.

        Args:
            bundle: A bundle's folder or zip; by default the embedded model, which knows only coloured shapes.
            device: "auto", "cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"; some take a precision, as in
                "openvino:bf16". A device that cannot run here is an error, except for "auto".
            threads: Processor threads, by default one for each physical core.

        Raises:
            BundleError: There is no bundle, or it cannot be used.
            DeviceError: The device is unknown or cannot run here.
        """
        return cls(Bundle.load(bundle or default_bundle_path()), device=device, threads=threads)

    @property
    def device_reason(self) -> str:
        """One line: on which device the graphs run and why."""
        return self._text_encoder.device_reason

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of B texts; `TokenBatch.truncated` says which were too long and at which word they were cut."""
        return self.tokenizer.encode(texts, self.bundle.manifest.max_words)

    def encode_text(self, texts: Sequence[str]) -> dict[str, LevelTokens]:
        """Tokens of B texts, level by level."""
        return self.encode_tokens(self.tokenize(texts))

    def encode_tokens(self, batch: TokenBatch) -> dict[str, LevelTokens]:
        """Tokens of B texts that `tokenize` cut, level by level."""
        return self._levels(self._text_encoder, {"token_ids": batch.ids, "token_mask": batch.mask})

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> dict[str, LevelTokens]:
        """Tokens of B clips, level by level.

        Args:
            frames: (B, F, H, W, 3) uint8, red, green, blue, of the size that `bundle.manifest.sampling` says.
            mask: (B, F) bool, True where there is a frame.

        Raises:
            EngineError: The arrays are of another shape or type.
        """
        return self._levels(self._video_encoder, {"frames": frames, "frame_mask": mask})

    def similarity(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """(Bt, Bv) float32: the score of every text (or clip) with every clip.

        On a GPU the bundle's graph computes it, where the bundle has one; else NumPy, which no graph on the processor
        surpasses.
        """
        if self._on_gpu and "similarity" in self.bundle.manifest.graphs and fits(self._similarity, text, video):
            return similarity_by_graph(self._similarity, text, video)
        return similarity(text, video, self.rates, padded_partner=self.bundle.manifest.padded_partner)

    def rerank(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """(B,) float32: the score of B pairs by their reconstructed tokens, which know of each other.

        One text goes with any number of clips, and one clip with any number of texts.

        Raises:
            BundleError: The bundle has no reconstruction.
            InputError: There are other numbers of texts and clips.
        """
        scores: npt.NDArray[np.float32] = self._reranker.run(_side_by_side(text, video))["score"]
        return scores

    def answer_logits(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """(B, A) float32: a logit for each of `bundle.manifest.answers`, for B questions about B clips.

        Their softmax is calibrated: the probability that the answer is right.

        One question goes with any number of clips, and one clip with any number of questions.

        Raises:
            BundleError: The bundle cannot answer questions.
            InputError: There are other numbers of questions and clips.
        """
        logits: npt.NDArray[np.float32] = self._answerer.run(_side_by_side(text, video))["logits"]
        return logits

    def write_captions(self, video: Levels, options: Decoding | None = None) -> list[Generated]:
        """A text for each of B clips, as token ids; `tokenizer.decode` makes it readable.

        Args:
            video: Their tokens.
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
        """Level name -> (B, T, V) float32: the exact Banzhaf interaction of the tokens of B texts and B clips.

        One text goes with any number of clips, and one clip with any number of texts. Without a graph for it in the
        bundle, NumPy computes it on the processor.

        Raises:
            InputError: There are other numbers of texts and clips.
        """
        pairs = _side_by_side(text, video)
        if "interaction" in self.bundle.manifest.graphs:
            made = self._interaction.run(pairs)
            return {level: made[f"{level}_interaction"] for level in self.rates}
        return {level: _numpy_interaction(pairs, level) for level in self.rates}

    def index(
        self,
        folder: Path | str,
        *,
        location: Path | str | None = None,
        rebuild: bool = False,
        retry_failed: bool = False,
        workers: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
    ) -> Index:
        """The index of a folder of videos, brought up to date; `Index.failures` names files that could not be read.

        Args:
            folder: Of the videos.
            location: Of the index's file; by default in the user's cache folder.
            rebuild: Whether to throw away what an existing index holds.
            retry_failed: Whether to try failed videos again though they have not changed.
            workers: Decoding processes.
            progress: Called at the start and after each video.

        Raises:
            InputError: There is no such folder, or no video in it.
            IndexStoreError: The index is of another model or folder, damaged, or cannot be written.
        """
        from hbi_infer.index.folder_index import Index

        index = Index.open(folder, self, location=location, rebuild=rebuild)
        try:
            index.update(retry_failed=retry_failed, workers=workers, progress=progress)
        except BaseException:
            index.close()
            raise
        return index

    def search(
        self, videos: Path | str, query: str, *, location: Path | str | None = None, **options: Any
    ) -> list[Match]:
        """Search a folder of videos for a text, indexing first what is new in it.

        For several queries, make the `index` once and search that. See `hbi_infer.tasks.search.search` for the options.
        """
        with self.index(videos, location=location) as index:
            return index.search(query, **options)

    def rank_captions(
        self, video: Path | str, captions: Sequence[str], *, top_k: int | None = None
    ) -> list[CaptionMatch]:
        """Which captions fit a video, best first; see `hbi_infer.tasks.search.rank_captions`."""
        from hbi_infer.tasks.search import rank_captions

        return rank_captions(self, Path(video), captions, top_k=top_k)

    def explain(
        self,
        video: Path | str,
        query: str,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
        **options: Any,
    ) -> Explanation:
        """Why a video matches a query: which words and frames are worth how much together.

        Args:
            video: Any video. One that is indexed is not decoded.
            query: A sentence.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: Of that index's file; by default in the user's cache folder.
            options: See `hbi_infer.tasks.explain.explain`.
        """
        from hbi_infer.tasks.explain import explain

        with self._index_for(video, videos, location) as index:
            return explain(self, Path(video), query, index=index, **options)

    def answer(
        self,
        video: Path | str,
        question: str,
        options: Answering | None = None,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> Answer:
        """The answer to a question about a video: that of the clip which has the most probable one.

        For each clip's answer use `hbi_infer.tasks.qa.answer_video`; for a folder, the `answer` of its `index`.

        Args:
            video: Any video. One that is indexed is not decoded.
            question: A sentence.
            options: How many answers to name, and when to say "don't know".
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: Of that index's file; by default in the user's cache folder.
        """
        from hbi_infer.tasks.qa import answer_video

        one = replace(options or Answering(), all_clips=False)
        with self._index_for(video, videos, location) as index:
            return answer_video(self, Path(video), question, one, index=index)[0]

    def caption(
        self,
        video: Path | str,
        options: Decoding | None = None,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> list[Caption]:
        """A caption for each clip of a video; for a folder, use the `caption` of its `index`.

        Args:
            video: Any video. One that is indexed is not decoded.
            options: How to choose words.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: Of that index's file; by default in the user's cache folder.
        """
        from hbi_infer.tasks.caption import caption_video

        with self._index_for(video, videos, location) as index:
            return caption_video(self, Path(video), options, index=index)

    def _index_for(
        self, video: Path | str, videos: Path | str | None, location: Path | str | None
    ) -> AbstractContextManager[Index | None]:
        from hbi_infer.index.folder_index import Index

        return Index.open_for(Path(video), self, folder=videos, location=location) or nullcontext()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Cuts the texts."""
        return Tokenizer.from_json(self.bundle.tokenizer_json())

    @cached_property
    def _text_encoder(self) -> Engine:
        return self._open("text_encoder")

    @cached_property
    def _video_encoder(self) -> Engine:
        return self._open("video_encoder")

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
        engine = self._open_graph(name)
        wanted = set(GRAPHS[name].output_names(self.rates))
        if missing := sorted(wanted - {spec.name for spec in engine.outputs}):
            raise BundleError(f"the graph {name} of {self.bundle.path} has no {', '.join(missing)}: export it again")
        return engine

    def _levels(self, engine: Engine, inputs: Arrays) -> dict[str, LevelTokens]:
        made: dict[str, npt.NDArray[Any]] = engine.run(inputs)
        return {
            level: LevelTokens(made[f"{level}_tokens"], made[f"{level}_weights"], made.get(f"{level}_slots"))
            for level in self.rates
        }


def load_graph(bundle: Bundle, name: str, device: str = "auto", threads: int | None = None) -> Engine:
    """Loads a graph of a bundle; see `hbi_engines.registry.open_engine`.

    Raises:
        BundleError: The bundle has no such graph, or the file is not the one that was exported.
        DeviceError: The device is unknown or cannot run here.
        EngineError: The runtime refused the graph.
    """
    content = bundle.graph_bytes(name)
    try:
        return open_engine(content, device, threads, BuiltEngines(bundle.path, name))
    except DeviceError:
        raise
    except EngineError as error:
        if bundle.manifest.graphs[name].precision != "bf16":
            raise
        raise EngineError(
            f"{name} of {bundle.path} is in bf16, which device {device} does not compute: use --device openvino or a "
            f"GPU, or a bundle in another precision ({error})"
        ) from error


def _side_by_side(text: Levels, video: Levels) -> dict[str, npt.NDArray[np.float32]]:
    """Names the inputs of graphs on pairs; a single text or clip is repeated for each one of the other side."""
    sizes = [len(next(iter(side.values()))) for side in (text, video)]
    if len({*sizes} - {1}) > 1:
        raise InputError(f"there are {sizes[0]} texts and {sizes[1]} clips; give as many of both, or one of either")
    return {
        name: array if len(array) == max(sizes) else array.repeat(max(sizes), 0)
        for side, levels in (("text", text), ("video", video))
        for name, array in named_inputs(side, levels).items()
    }


def _numpy_interaction(pairs: Arrays, level: str) -> npt.NDArray[np.float32]:
    from hbi_infer.tokens.banzhaf import banzhaf_interaction

    text, video = (unit(pairs[f"{side}_{level}_tokens"]) for side in ("text", "video"))
    weights = [pairs[f"{side}_{level}_weights"] for side in ("text", "video")]
    masks = [part > 0 for part in weights]
    exact: npt.NDArray[np.float32] = banzhaf_interaction(text @ video.transpose(0, 2, 1), *weights, *masks)
    return exact
