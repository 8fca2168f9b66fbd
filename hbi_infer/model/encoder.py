"""The protocol of the models that tasks work with: encoders, scores, and the graphs on their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from hbi_infer.tokens.layout import TokenLayout

if TYPE_CHECKING:
    from hbi_infer.model.bundle import Bundle
    from hbi_infer.model.text_generation import Generated
    from hbi_infer.model.tokenizer import TokenBatch, Tokenizer
    from hbi_infer.options import Decoding
    from hbi_infer.tokens.levels import Levels
    from hbi_infer.tokens.scoring import Scoring
    from hbi_infer.video.decoded_video import Clip

BATCH_CLIPS = 16
"""Number of clips that go through the video encoder together."""


class Encoder(Protocol):
    """A model that turns clips and texts into tokens, such as `hbi_infer.model.token_model.TokenModel`."""

    @property
    def bundle(self) -> Bundle:
        """The model on disk: its manifest and its hash."""

    @property
    def scoring(self) -> Scoring:
        """How the model compares tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its texts."""

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Returns the token ids of B texts, and where each was cut."""

    def encode_tokens(self, batch: TokenBatch) -> Levels:
        """Computes the tokens of B texts from what `tokenize` returned."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        """Computes the tokens of B clips.

        Args:
            frames: (B, F, H, W, 3) uint8, red, green, blue.
            mask: (B, F) bool, True where there is a frame.
        """

    def similarity(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes the scores (Bt, Bv) of Bt texts (or clips) with Bv clips."""

    def rerank(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes scores (B,) of one text with B clips by reconstructed tokens; needs the task "rerank"."""

    def answer_logits(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """Computes calibrated logits (B, A) of A answers to B questions about B clips; needs the task "qa"."""

    def write_captions(self, video: Levels, options: Decoding | None = None) -> list[Generated]:
        """Writes a text for each of B clips, as token ids; needs the task "caption"."""


def token_layout(encoder: Encoder) -> TokenLayout:
    """Returns the layout of the tokens that an encoder gives for a clip."""
    manifest = encoder.bundle.manifest
    # A text encoder may merge words where the video encoder merges no frames.
    graph = manifest.graphs.get(manifest.clip_graph)
    outputs = {output.name for output in graph.outputs} if graph else set()
    merged = tuple(level.name for level in manifest.levels if f"{level.name}_slots" in outputs)
    return TokenLayout(tuple((level.name, level.video_tokens) for level in manifest.levels), manifest.width, merged)


def encode_clips(encoder: Encoder, clips: Sequence[Clip]) -> Iterator[Levels]:
    """Computes the tokens of N clips, `BATCH_CLIPS` at a time."""
    for start in range(0, len(clips), BATCH_CLIPS):
        batch = clips[start : start + BATCH_CLIPS]
        yield encoder.encode_video(np.stack([clip.frames for clip in batch]), np.stack([clip.mask for clip in batch]))
