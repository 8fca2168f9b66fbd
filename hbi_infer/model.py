"""The model: frames and texts in, tokens and scores out, from a bundle on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_engines.engine import Arrays, Engine
from hbi_engines.registry import check_device, open_engine
from hbi_infer.bundle import Bundle, default_bundle_path
from hbi_infer.errors import BundleError
from hbi_infer.similarity import similarity
from hbi_infer.tokenizer import TokenBatch, Tokenizer
from hbi_infer.tokens import Levels, LevelTokens

if TYPE_CHECKING:
    from hbi_infer.index import Index
    from hbi_infer.retrieve import Match
    from hbi_infer.update import IndexProgress


class HBI:
    """A bundle ready to run. Each graph is loaded when it is first used, so that searching loads no video encoder.

    Attributes:
        bundle: What was loaded.
        rates: Level name -> what its similarity is multiplied with in the score.
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        check_device(device)
        self.bundle = bundle
        self.rates = {level.name: level.rate for level in bundle.manifest.levels}
        self._device = device
        self._threads = threads

    @classmethod
    def load(cls, bundle: Path | str | None = None, *, device: str = "auto", threads: int | None = None) -> HBI:
        """Load a bundle.

        Args:
            bundle: A bundle's folder or zip; by default the embedded model, which knows only coloured shapes.
            device: "auto", "cpu" or "cuda". A device that cannot run here is an error, except for "auto".
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
        batch = self.tokenize(texts)
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
        """(Bt, Bv) float32: the score of every text (or clip) with every clip."""
        return similarity(text, video, self.rates, padded_partner=self.bundle.manifest.padded_partner)

    def index(
        self,
        folder: Path | str,
        *,
        location: Path | str | None = None,
        rebuild: bool = False,
        workers: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
    ) -> Index:
        """The index of a folder of videos, brought up to date; `Index.failures` names files that could not be read.

        Args:
            folder: Of the videos.
            location: Of the index's file; by default in the user's cache folder.
            rebuild: Whether to throw away what an existing index holds.
            workers: Decoding processes.
            progress: Called at the start and after each video.

        Raises:
            InputError: There is no such folder, or no video in it.
            IndexStoreError: The index is of another model or folder, damaged, or cannot be written.
        """
        from hbi_infer.index import Index

        index = Index.open(folder, self, location=location, rebuild=rebuild)
        try:
            index.update(workers=workers, progress=progress)
        except BaseException:
            index.close()
            raise
        return index

    def search(
        self, videos: Path | str, query: str, *, location: Path | str | None = None, **options: Any
    ) -> list[Match]:
        """Search a folder of videos for a text, indexing first what is new in it.

        For several queries, make the `index` once and search that. See `hbi_infer.retrieve.search` for the options.
        """
        with self.index(videos, location=location) as index:
            return index.search(query, **options)

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

    def _open(self, name: str) -> Engine:
        engine = open_engine(self.bundle.graph_bytes(name), self._device, self._threads)
        wanted = {f"{level}_{part}" for level in self.rates for part in ("tokens", "weights")}
        if missing := sorted(wanted - {spec.name for spec in engine.outputs}):
            raise BundleError(f"the graph {name} of {self.bundle.path} has no {', '.join(missing)}: export it again")
        return engine

    def _levels(self, engine: Engine, inputs: Arrays) -> dict[str, LevelTokens]:
        made: dict[str, npt.NDArray[Any]] = engine.run(inputs)
        return {
            level: LevelTokens(made[f"{level}_tokens"], made[f"{level}_weights"], made.get(f"{level}_slots"))
            for level in self.rates
        }
