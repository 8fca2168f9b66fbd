"""HBI: hierarchical video and text tokens, and their similarity at each level; joins the parts of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from hbi_training.model.answer_head import AnswerHead
from hbi_training.model.caption_decoder import CaptionDecoder, Memory
from hbi_training.model.clip_encoders import FrameEncoder, WordEncoder, build_clip
from hbi_training.model.config import LEVELS, HBIConfig
from hbi_training.model.neighbour_mixer import NeighbourMixer
from hbi_training.model.reconstruction import Reconstruction
from hbi_training.model.tasks import HBITask, Task, cannot
from hbi_training.model.temporal_transformer import TemporalTransformer
from hbi_training.model.token_interaction import (
    Tokens,
    TokensByLevel,
    TokenWeights,
    cross_similarity,
    matched_similarity,
)
from hbi_training.model.token_merge import TokenMerge

VIDEO_ENCODER = ("frame_encoder", "temporal_transformer", "video_hierarchy")
"""Parts that compute the tokens of videos."""


class TokenHierarchy(nn.Module):
    """Merges entity tokens into action tokens and those into event tokens, and weighs the tokens of each level.

    A context, if there is one, lets what is merged know the whole clip or text.
    """

    def __init__(self, config: HBIConfig, token_counts: tuple[int, ...], ratios: tuple[float, ...]) -> None:
        super().__init__()
        self.context: TemporalTransformer | None = None
        if config.context_layers:
            self.context = TemporalTransformer(
                width=config.width,
                layers=config.context_layers,
                heads=config.temporal_heads,
                max_positions=token_counts[0],
            )
        self.weights = nn.ModuleDict({level: TokenWeights(width=config.width) for level in LEVELS})
        self.merges = nn.ModuleDict(
            {
                level: TokenMerge(
                    width=config.width,
                    max_tokens=count,
                    ratio=ratio,
                    heads=config.merge_heads,
                    neighbours=config.neighbours,
                    merging=config.merging,
                )
                for level, count, ratio in zip(LEVELS[1:], token_counts[:-1], ratios, strict=True)
            }
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> TokensByLevel:
        """Returns the tokens of each level from entity tokens (B, N, D) with mask (B, N) bool."""
        levels: TokensByLevel = {}
        slots = None
        for level in LEVELS:
            if level in self.merges:
                tokens, mask, slots = self.merges[level](tokens, mask)
            levels[level] = Tokens(tokens, self.weights[level](tokens, mask), mask, slots)
            if slots is None and self.context is not None:
                tokens = self.context(tokens, mask)
        return levels


def without_marks(mask: Tensor) -> Tensor:
    """Returns the mask (B, T) bool of texts' words, from that of their tokens: without the first and the last of each.

    A text of nothing but the marks keeps them, for each item must have a player.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    number = mask.sum(-1, keepdim=True)
    words = mask & (place > 0) & (place < number - 1)
    return torch.where(number > 2, words, mask)


class HBI(nn.Module):
    """The whole model.

    Args:
        config: Sizes and choices of the model.
        clip: CLIP with trained weights; None starts from random ones.
    """

    kind: ClassVar[str] = "hbi"
    config_type: ClassVar[type[HBIConfig]] = HBIConfig

    def __init__(self, config: HBIConfig, clip: CLIPModel | None = None) -> None:
        super().__init__()
        self.config = config
        clip = clip if clip is not None else build_clip(config.clip, vision_stem=config.vision_stem)
        self.frame_encoder = FrameEncoder(clip)
        self.word_encoder = WordEncoder(clip, config.word_window)
        self.logit_scale = clip.logit_scale
        self.temporal_transformer: TemporalTransformer | NeighbourMixer | None = None
        if config.temporal_layers and config.frame_window:
            self.temporal_transformer = NeighbourMixer(
                width=config.width, layers=config.temporal_layers, window=config.frame_window
            )
        elif config.temporal_layers:
            self.temporal_transformer = TemporalTransformer(
                width=config.width,
                layers=config.temporal_layers,
                heads=config.temporal_heads,
                max_positions=config.temporal_positions or config.sampling.max_frames,
                layer_norm_eps=config.temporal_layer_norm_eps,
            )
        self.text_hierarchy = TokenHierarchy(config, config.text_token_counts, config.text_merge_ratios)
        self.video_hierarchy = TokenHierarchy(config, config.video_token_counts, config.video_merge_ratios)
        self.reconstruction: Reconstruction | None = None
        self.answer_head: AnswerHead | None = None
        self.caption_decoder: CaptionDecoder | None = None
        if config.reconstruction_layers:
            self.reconstruction = Reconstruction(
                width=config.width, levels=LEVELS, layers=config.reconstruction_layers, heads=config.temporal_heads
            )
        if config.answers:
            projection_width, hidden_width = config.answer_widths
            self.answer_head = AnswerHead(
                width=config.width,
                projection_width=projection_width,
                hidden_width=hidden_width,
                num_answers=len(config.answers),
                level_rates=config.answer_rates,
                released=config.merging == "released",
            )
        if config.caption_layers:
            self.caption_decoder = CaptionDecoder(
                width=config.width,
                vocabulary_size=clip.text_model.embeddings.token_embedding.num_embeddings,
                layers=config.caption_layers,
                heads=config.temporal_heads,
                max_tokens=config.max_words,
            )

    @property
    def tasks(self) -> frozenset[Task]:
        """Tasks that the model's parts allow."""
        parts: dict[Task, nn.Module | None] = {
            "rerank": self.reconstruction,
            "qa": self.answer_head,
            "caption": self.caption_decoder,
        }
        return frozenset({"retrieve", "interaction", *(task for task, part in parts.items() if part is not None)})

    def require(self, task: HBITask, asked_by: str) -> HBI:
        """Returns the model itself for a caller that needs one of its tasks.

        Raises:
            TrainingError: The model cannot do the task; the message begins with `asked_by`.
        """
        if task not in self.tasks:
            raise cannot(task, asked_by)
        return self

    def encode_text(self, token_ids: Tensor, token_mask: Tensor) -> TokensByLevel:
        """Returns the text tokens of each level from ids (B, T) int64 and mask (B, T) bool."""
        if self.config.merging == "released":  # padding makes tokens there too, as many as the longest text has
            length = self.config.max_words
            token_ids, token_mask = (F.pad(part, (0, length))[:, :length] for part in (token_ids, token_mask))
        players = token_mask if self.config.marks_play else without_marks(token_mask)
        return self.text_hierarchy(self.word_encoder(token_ids, token_mask), players)

    def encode_video(self, frames: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """Returns the video tokens of each level from frames (B, F, H, W, 3) uint8 and mask (B, F) bool."""
        pixels = self.frame_encoder.normalise(frames.flatten(0, 1))
        if self.config.merging == "released":  # missing frames are not masked there, but zeros after normalisation
            pixels = pixels * frame_mask.flatten()[:, None, None, None].to(pixels.dtype)
        return self.encode_pixels(pixels, frame_mask)

    def encode_pixels(self, pixels: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """Returns the video tokens of each level from normalised pixels (B * F, 3, H, W) and mask (B, F) bool."""
        return self.encode_features(self.frame_encoder(pixels), frame_mask)

    def encode_features(self, frame_features: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """Returns the video tokens of each level from the frame encoder's (B * F, D) and mask (B, F) bool."""
        return self.video_hierarchy(self.contextualise(frame_features, frame_mask), frame_mask)

    def contextualise(self, frame_features: Tensor, frame_mask: Tensor) -> Tensor:
        """Adds the context of the clip to frame features (B * F, D) with mask (B, F) bool: (B, F, D)."""
        # (B * F, D) -> (B, F, D)
        features = frame_features.unflatten(0, (-1, frame_mask.shape[1]))
        return features if self.temporal_transformer is None else self.temporal_transformer(features, frame_mask)

    def similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Returns the similarities (N, B) of N texts and B videos at each level."""
        partner = self.config.padded_partner
        return {level: cross_similarity(text[level], video[level], padded_partner=partner) for level in LEVELS}

    def matched_similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Returns the similarities (B, K) of each of B videos with its own K of B * K texts, at each level."""
        partner = self.config.padded_partner
        return {level: matched_similarity(text[level], video[level], padded_partner=partner) for level in LEVELS}

    def reconstruct(self, text: TokensByLevel, video: TokensByLevel) -> tuple[TokensByLevel, TokensByLevel]:
        """Reconstructs the tokens (B, N, D) of matched pairs; without a reconstruction they stay as they are."""
        return (text, video) if self.reconstruction is None else self.reconstruction(text, video)

    def answer(self, question: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Returns the logits (B, A) of the answers to B questions about B videos, at each level."""
        assert self.answer_head is not None
        logits: dict[str, Tensor] = self.answer_head(*self.reconstruct(question, video))
        return logits

    def answer_logits(self, question: TokensByLevel, video: TokensByLevel) -> Tensor:
        """Returns calibrated logits (B, A) of all levels together; their softmax is the probability of each answer."""
        assert self.answer_head is not None
        return self.answer_head.combine(self.answer(question, video)) / self.config.answer_temperature

    def read(self, video: TokensByLevel) -> Memory:
        """Returns the keys and values of B videos for the caption decoder."""
        assert self.caption_decoder is not None
        return self.caption_decoder.read(self.reconstruct({}, video)[1])

    @property
    def level_rates(self) -> dict[str, float]:
        """Factor of each level's similarity in the score."""
        return dict(zip(LEVELS, self.config.level_rates, strict=True))

    def score(self, similarity: Mapping[str, Tensor]) -> Tensor:
        """Sums the levels' similarities by their rates into the score that ranks results: (N, B) each -> (N, B)."""
        rated = [rate * similarity[level] for level, rate in self.level_rates.items() if rate]
        return torch.stack(rated).sum(0)
