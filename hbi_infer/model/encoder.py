"""What the tasks need of a model: two encoders, what works on their tokens, and what the bundle says about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    from hbi_infer.video.decoded_video import Clip

BATCH_CLIPS = 16
"""Clips that go through the video encoder together."""


class Encoder(Protocol):
    """A model that turns clips and texts into tokens; `hbi_infer.model.token_model.HBI` is one."""

    @property
    def bundle(self) -> Bundle:
        """The model on disk: its manifest and its hash."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Level name -> what its similarity is multiplied with in the score."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Cuts the texts."""

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of B texts, and where each was cut."""

    def encode_text(self, texts: Sequence[str]) -> Levels:
        """Tokens of B texts."""

    def rerank(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """(B,) scores of one text with B clips by reconstructed tokens, if the bundle can do that."""

    def answer_logits(self, text: Levels, video: Levels) -> npt.NDArray[np.float32]:
        """(B, A) calibrated logits of the answers to B questions about B clips, if the bundle can do that."""

    def write_captions(self, video: Levels, options: Decoding | None = None) -> list[Generated]:
        """A text for each of B clips, as token ids, if the bundle can do that."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        """Tokens of B clips from frames (B, F, H, W, 3) uint8 and mask (B, F) bool, True where there is a frame."""


def token_layout(encoder: Encoder) -> TokenLayout:
    """The layout of the tokens that the encoder gives for a clip."""
    manifest = encoder.bundle.manifest
    outputs = {output.name for graph in manifest.graphs.values() for output in graph.outputs}
    merged = tuple(level.name for level in manifest.levels if f"{level.name}_slots" in outputs)
    return TokenLayout(tuple((level.name, level.video_tokens) for level in manifest.levels), manifest.width, merged)


def encode_clips(encoder: Encoder, clips: Sequence[Clip]) -> Iterator[Levels]:
    """Tokens of the clips, batch by batch."""
    for start in range(0, len(clips), BATCH_CLIPS):
        batch = clips[start : start + BATCH_CLIPS]
        yield encoder.encode_video(np.stack([clip.frames for clip in batch]), np.stack([clip.mask for clip in batch]))
