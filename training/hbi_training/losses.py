"""The training objective: what is asked of the similarities of a batch.

`RetrievalObjective` sums its terms with the recipe's weights and reports each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(similarity: Tensor, scale: Tensor, hard_negatives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (CVPR 2023, equation 5): the diagonal against its row and against its column.

    Args:
        similarity: (B, B), texts in rows, videos in columns; pair i is at (i, i).
        scale: exp of the logit scale, a scalar.
        hard_negatives: (B, K) similarities of each video with texts of its own that are nearly but not true of it;
            they join the video's side of the contest.
    """
    target = torch.arange(len(similarity), device=similarity.device)
    of_text = scale * similarity
    of_video = of_text.T
    if hard_negatives is not None:
        of_video = torch.cat([of_video, scale * hard_negatives], dim=1)
    return 0.5 * (F.cross_entropy(of_text, target) + F.cross_entropy(of_video, target))


def distillation_loss(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """KL of a level's match distributions from those of the entity level, over texts and over videos.

    The released code (kept as `released_kl` below) uses raw similarities, lets the gradient into the teacher and
    divides by the row length as well; here the logits carry the temperature, the teacher is held fixed and rows are
    averaged.
    """
    teacher, scale = (scale * teacher).detach(), scale.detach()
    return 0.5 * sum(
        (
            F.kl_div((scale * s).log_softmax(-1), t.log_softmax(-1), reduction="batchmean", log_target=True)
            for s, t in ((student, teacher), (student.T, teacher.T))
        ),
        start=torch.zeros((), device=student.device),
    )


def released_kl(prediction: Tensor, target: Tensor) -> Tensor:
    """KL as the released code has it: softmax over the last axis, mean over all elements."""
    return F.kl_div(prediction.log_softmax(-1), target.softmax(-1), reduction="none").mean()


@dataclass(frozen=True, kw_only=True)
class RetrievalObjective:
    """Weights of the terms.

    Attributes:
        deep_supervision: Weight of the contrastive loss at the action and event levels; at the entity level it is 1.
        self_distillation: Weight of the action and event levels' KL from the entity level.
        hard_negatives: Captions for each clip that are nearly true of it and are contrasted with it; 0 for none.
        released_distillation: True takes the KL of the released code.
    """

    deep_supervision: float = 1.0
    self_distillation: float = 0.2
    hard_negatives: int = 0
    released_distillation: bool = False

    def terms(
        self, similarity: Mapping[str, Tensor], scale: Tensor, hard_negatives: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Each weighted term by name; the loss is their sum.

        Args:
            similarity: (B, B) at each level, the first of which supervises the others.
            scale: exp of the logit scale.
            hard_negatives: (B, K) at each level.
        """
        levels = list(similarity)
        terms: dict[str, Tensor] = {}
        for level in levels:
            weight = 1.0 if level == levels[0] else self.deep_supervision
            negatives = None if hard_negatives is None else hard_negatives[level]
            if weight:
                terms[f"contrastive_{level}"] = weight * contrastive_loss(similarity[level], scale, negatives)
        if self.self_distillation:
            teacher = similarity[levels[0]]
            for level in levels[1:]:
                student = similarity[level]
                if self.released_distillation:
                    term = released_kl(student, teacher) + released_kl(student.T, teacher.T)
                else:
                    term = distillation_loss(student, teacher, scale)
                terms[f"distillation_{level}"] = self.self_distillation * term
        return terms
