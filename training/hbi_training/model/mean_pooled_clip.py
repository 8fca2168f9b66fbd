"""CLIP and no more on top than the mean of its frame features: zero-shot retrieval, and the baseline of a recipe."""

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
    """Sizes of a mean-pooled CLIP; see `HBIConfig` for the attributes of the same name."""

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
        """D, the width of every token."""
        return int(self.clip["projection_dim"])

    def to_json(self) -> dict[str, Any]:
        """A mapping that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MeanPooledConfig:
        """Reads what `to_json` wrote, or a recipe's `model` section."""
        given = dict(values)
        if "sampling" in given:
            given["sampling"] = from_mapping(FrameSampling, given["sampling"], "sampling")
        return from_mapping(cls, given, "the model's configuration")


class MeanPooledCLIP(nn.Module):
    """A text is its end token; a video is the mean of its frames' unit features (CLIP4Clip's "meanP", Luo et al. 2021).

    Two levels: "frame" holds the frames, which count nothing in the score but say where a match is; "video" holds their
    mean.
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
        """What the similarity of each level counts in the score."""
        return {"frame": 0.0, "video": 1.0}

    def require(self, task: HBITask, asked_by: str) -> NoReturn:
        """Refuses every task that needs a part of an `HBI` model.

        Raises:
            TrainingError: Always; the message begins with `asked_by`.
        """
        raise cannot(task, asked_by)

    def encode_text(self, token_ids: Tensor, token_mask: Tensor) -> TokensByLevel:
        """(B, T) int64 and (B, T) bool -> one token a text, the same at both levels."""
        hidden = self.word_encoder(token_ids, token_mask)
        # The end token is the last real one: 1 there and 0 elsewhere, with no index that depends on the ids.
        is_end = token_mask & ~F.pad(token_mask[:, 1:], (0, 1))
        end = is_end.to(hidden.dtype)[:, None, :] @ hidden
        tokens = Tokens(end, torch.ones_like(end[..., 0]), torch.ones_like(end[..., 0], dtype=torch.bool))
        return {"frame": tokens, "video": tokens}

    def encode_video(self, frames: Tensor, frame_mask: Tensor) -> TokensByLevel:
        """(B, F, H, W, 3) uint8 and (B, F) bool -> the frames, and their mean."""
        features = self.frame_encoder(self.frame_encoder.normalise(frames.flatten(0, 1)))
        features = features.unflatten(0, (-1, frame_mask.shape[1]))
        weights = frame_mask.float() / frame_mask.float().sum(-1, keepdim=True)
        mean = weights[:, None, :].to(features.dtype) @ F.normalize(features, dim=-1)
        video = Tokens(mean, torch.ones_like(mean[..., 0]), torch.ones_like(mean[..., 0], dtype=torch.bool))
        return {"frame": Tokens(features, weights, frame_mask), "video": video}

    def similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Similarities (A, B) of A texts and B videos, at the level that counts."""
        return {"video": cross_similarity(text["video"], video["video"])}

    def matched_similarity(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Similarities (B, K) of each of B videos with K texts of its own, out of B * K texts."""
        return {"video": matched_similarity(text["video"], video["video"])}

    def score(self, similarity: Mapping[str, Tensor]) -> Tensor:
        """What retrieval ranks by."""
        return similarity["video"]
