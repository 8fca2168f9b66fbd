"""The training objective: the terms of the loss and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_training.model.tasks import HBITask
from hbi_training.objective.losses import contrastive_loss, distillation_loss, released_distillation_loss


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights of the terms; a weight of 0 leaves a term out.

    Attributes:
        contrastive: Weight of the contrastive loss at the entity level.
        deep_supervision: Weight of the contrastive loss at the action and event levels.
        self_distillation: Weight of the action and event levels' KL from the entity level.
        hard_negatives: Number of captions per clip that are nearly true of it and are contrasted with it; 0 for none.
        banzhaf: Weight of the alignment of similarities with their Banzhaf interactions, at each level.
        banzhaf_temperature: Temperature of the distributions that are aligned.
        banzhaf_samples: Coalitions of each pair of tokens from which the target is estimated; 0 for the exact target.
        weight_entropy: Weight of the penalty on weights that gather on few words or frames of the entity level.
        weight_entropy_floor: Entropy below which it is paid, as a part of the largest there can be.
        reconstruction: Weight of the contrastive loss on reconstructed pairs; the alignment's target then comes from
            reconstructed tokens. The model must have `reconstruction_layers`.
        reconstruction_negatives: Number of other clips' captions that each reconstructed pair is contrasted with.
        answering: Weight of the cross-entropy of answers to questions; the model then has an answer head.
        questions: Number of questions about each clip of a batch.
        captioning: Weight of the cross-entropy of captions, word by word; the model must have `caption_layers`.
        label_smoothing: Label smoothing of that cross-entropy.
        self_critical: Weight of the CIDEr of sampled captions (`hbi_training.objective.self_critical`): a stage after
            one of cross-entropy, whose model is the recipe's `initial`; with or without `captioning`.
        self_critical_samples: Captions sampled for each clip. One is compared with the likeliest caption, several with
            the mean of one another.
        stills: Weight of what single frames show, which is known of drawn clips alone: one frame of each clip of a
            batch, told by heads of training (`hbi_training.objective.stills`). A stage by itself, before one of whole
            clips, costs a twelfth of those.
        variant: "released" is the loss of the authors' code: estimator networks (`BanzhafEstimator`) read the
            similarities, and their outputs are aligned with that of a fixed one; other temperatures and means.
        estimator: File of the fixed estimator, for the released variant with `banzhaf`.
    """

    contrastive: float = 1.0
    deep_supervision: float = 1.0
    self_distillation: float = 0.2
    hard_negatives: int = 0
    banzhaf: float = 0.0
    banzhaf_temperature: float = 0.1
    banzhaf_samples: int = 0
    weight_entropy: float = 0.0
    weight_entropy_floor: float = 0.7
    reconstruction: float = 0.0
    reconstruction_negatives: int = 2
    answering: float = 0.0
    questions: int = 1
    captioning: float = 0.0
    label_smoothing: float = 0.1
    self_critical: float = 0.0
    self_critical_samples: int = 5
    stills: float = 0.0
    variant: Literal["hbi", "released"] = "hbi"
    estimator: str = ""

    def __post_init__(self) -> None:
        if self.variant not in ("hbi", "released"):
            raise TrainingError(f"the objective's variant is '{self.variant}'; known are hbi and released")
        if self.variant == "released" and self.banzhaf and not self.estimator:
            raise TrainingError(
                "the released alignment needs a trained estimator: give objective.estimator a file that "
                "'hbi-train estimator' wrote, or the authors'"
            )

        if self.self_critical_samples < 1:
            raise TrainingError(
                f"the objective's self_critical_samples is {self.self_critical_samples}; it must be at least 1"
            )

    @property
    def needed_tasks(self) -> dict[str, HBITask]:
        """Terms that need more of a model than retrieval, each with the task that the model must be able to do."""
        terms: dict[str, tuple[float, HBITask]] = {
            "banzhaf": (self.banzhaf, "interaction"),
            "reconstruction": (self.reconstruction, "rerank"),
            "answering": (self.answering, "qa"),
            "captioning": (self.captioning, "caption"),
            "self_critical": (self.self_critical, "caption"),
        }
        return {term: task for term, (weight, task) in terms.items() if weight}

    @property
    def writes_captions(self) -> bool:
        """Whether the caption decoder is trained."""
        return bool(self.captioning or self.self_critical)

    @property
    def reads_clips(self) -> bool:
        """Whether any term needs whole clips."""
        return self.compares or bool(self.answering) or self.writes_captions

    @property
    def compares(self) -> bool:
        """Whether texts are compared with videos; False if the model only learns to answer or to caption."""
        weights = (self.contrastive, self.deep_supervision, self.self_distillation, self.banzhaf, self.reconstruction)
        return any(weights)

    def similarity_terms(
        self, similarity: Mapping[str, Tensor], scale: Tensor, hard_negatives: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Computes the weighted terms on the similarities of whole texts and videos, by name.

        Args:
            similarity: Similarities (B, B) at each level, of which the first supervises the others.
            scale: exp of the logit scale.
            hard_negatives: Similarities (B, K) at each level.
        """
        first, *others = similarity
        terms: dict[str, Tensor] = {}
        for level in similarity:
            weight = self.contrastive if level == first else self.deep_supervision
            negatives = None if hard_negatives is None else hard_negatives[level]
            if weight:
                terms[f"contrastive_{level}"] = weight * contrastive_loss(similarity[level], scale, negatives)
        for level in others if self.self_distillation else ():
            if self.variant == "released":
                term = released_distillation_loss(similarity[level], similarity[first])
            else:
                term = distillation_loss(similarity[level], similarity[first], scale)
            terms[f"distillation_{level}"] = self.self_distillation * term
        return terms
