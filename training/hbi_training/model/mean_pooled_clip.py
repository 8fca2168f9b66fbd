"""CLIP with the mean of its frame features and nothing else: zero-shot retrieval, and the baseline of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from hbi_infer.options import FrameSampling
from hbi_training.model.clip_encoders import FrameEncoder, WordEncoder, build_clip
from hbi_training.model.config import check_clip_sizes, from_mapping
from hbi_training.model.tasks import HBITask, Task, cannot
from hbi_training.model.token_interaction import Tokens, TokensByLevel, cross_similarity, matched_similarity


@dataclass(frozen=True, kw_only=True)
class MeanPooledConfig:
    """Sizes of a mean-pooled CLIP; `HBIConfig` describes the attributes."""

    clip: Mapping[str, Any]
    vision_stem: Literal["patch", "convolution"] = "patch"
    max_words: int = 77
    sampling: FrameSampling = field(default_factory=FrameSampling)

    merging: ClassVar[Literal["masked", "released"]] = "masked"
    padded_partner: ClassVar[Literal["ignore", "zero"]] = "ignore"
    answers: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_clip_sizes(self.clip, self.max_words, self.sampling)

    @property
    def width(self) -> int:
        """Width D of every token."""
        return int(self.clip["projection_dim"])

    def to_json(self) -> dict[str, Any]:
        """Returns a mapping that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MeanPooledConfig:
        """Builds the configuration from the mapping of `to_json` or from a recipe's `model` section."""
        given = dict(values)
        if "sampling" in given:
            given["sampling"] = from_mapping(FrameSampling, given["sampling"], "sampling")
        return from_mapping(cls, given, "the model's configuration")


class MeanPooledCLIP(nn.Module):
    """Compares a text's end token with the mean of unit frame features (CLIP4Clip's "meanP", Luo et al. 2021).

    The level "frame" holds the frames, which do not count in the score but show where a match is; the level "video"
    holds their mean.
    """

    kind: ClassVar[str] = "mean_pooled_clip"
    config_type: ClassVar[type[MeanPooledConfig]] = MeanPooledConfig
    tasks: ClassVar[frozenset[Task]] = frozenset({"retrieve"})

    def __init__(self, config: MeanPooledConfig, clip: CLIPModel | None = None) -> None:
        super().__init__()
        self.config = config
        clip = clip if clip is not None else build_clip(config.clip, vision_stem=config.vision_stem)
        self.frame_encoder = FrameEncoder(clip)
        self.word_encoder = WordEncoder(clip)
        self.logit_scale = clip.logit_scale

    @property
    def level_rates(self) -> dict[str, float]:
        """Factor of each level's similarity in the score."""
        return {"frame": 0.0, "video": 1.0}

    def require(self, task: HBITask, asked_by: str) -> NoReturn:
        """Refuses every task that needs a part of an `HBI` model.

        Raises:
            TrainingError: Always; the message begins with `asked_by`.
        """
        raise cannot(task, asked_by)

    def encode_text(self, token_ids: Tensor, token_mask: Tensor) -> TokensByLevel:
        """Returns one token per text, at both levels, from ids (B, T) int64 and mask (B, T) bool."""
        hidden = self.word_encoder(token_ids, token_mask)
        # The end token is the last real one; a product with a mask needs no index that depends on the ids.
        is_end = token_mask & ~F.pad(token_mask[:, 1:], (0, 1))
        end = is_end.to(hidden.dtype)[:, None, :] @ hidden
        tokens = Tokens(end, torch.ones_like(end[..., 0]), torch.ones_like(end[..., 0], dtype=torch.bool))
        return {"frame": tokens, "video": tokens}

    def encode_video(self, frames: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """Returns the frames and their mean from frames (B, F, H, W, 3) uint8 and mask (B, F) bool."""
        return self.encode_features(self.frame_encoder(self.frame_encoder.normalise(frames.flatten(0, 1))), frame_mask)

    def encode_features(self, frame_features: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """Returns the frames and their mean from the frame encoder's (B * F, D) and mask (B, F) bool."""
        features = frame_features.unflatten(0, (-1, frame_mask.shape[1]))
        weights = frame_mask.float() / frame_mask.float().sum(-1, keepdim=True)
        mean = weights[:, None, :].to(features.dtype) @ F.normalize(features, dim=-1)
        video = Tokens(mean, torch.ones_like(mean[..., 0]), torch.ones_like(mean[..., 0], dtype=torch.bool))
        return {"frame": Tokens(features, weights, frame_mask), "video": video}

    def similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Returns the similarities (N, B) of N texts and B videos, at the level that counts."""
        return {"video": cross_similarity(text["video"], video["video"])}

    def matched_similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Returns the similarities (B, K) of each of B videos with its own K of B * K texts."""
        return {"video": matched_similarity(text["video"], video["video"])}

    def score(self, similarity: Mapping[str, Tensor]) -> Tensor:
        """Returns the score (N, B) that ranks results: the similarity of the level that counts."""
        return similarity["video"]
