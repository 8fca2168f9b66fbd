"""The terms of the training objective, as functions of similarities and interactions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hbi_training.model.token_interaction import Tokens


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


def pair_contrastive_loss(matched: Tensor, shifted: Sequence[Tensor], scale: Tensor, wrong: Tensor) -> Tensor:
    """InfoNCE where a pair costs too much to compare all with all: each side against a few partners.

    Args:
        matched: (B,) similarities of text i and video i.
        shifted: For the shift s = 1, 2, ...: (B,) similarities of text (i + s) modulo B and video i.
        scale: exp of the logit scale, a scalar.
        wrong: (B, K) similarities of each video with texts of its own that are nearly but not true of it.
    """
    target = torch.zeros(len(matched), dtype=torch.int64, device=matched.device)
    of_video = torch.cat([torch.stack([matched, *shifted], dim=1), wrong], dim=1)
    of_text = torch.stack([matched, *(part.roll(s) for s, part in enumerate(shifted, start=1))], dim=1)
    return 0.5 * (F.cross_entropy(scale * of_text, target) + F.cross_entropy(scale * of_video, target))


def distillation_loss(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """KL of a level's match distributions from those of the entity level, over texts and over videos.

    The released code (`released_distillation_loss`) uses raw similarities, lets the gradient into the teacher and
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


def alignment_loss(similarity: Tensor, interaction: Tensor, text: Tokens, video: Tokens, temperature: float) -> Tensor:
    """The similarities of a pair's tokens follow their Banzhaf interactions (CVPR 2023, section 3.3).

    For each word the distribution over frames that its cosines give (the student) is drawn to the one that its
    interactions give (the target, held fixed), and for each frame that over words. Interactions are small where many
    tokens share the weight, so that those of a row are divided by the largest; a row counts by the weight of its token.

    Args:
        similarity: (B, T, V) cosines.
        interaction: (B, T, V).
        text: The words' weights and mask.
        video: The frames' weights and mask.
        temperature: Of both distributions.

    Returns:
        KL of the student from the target, the mean over pairs and both directions.
    """
    real = text.mask[:, :, None] & video.mask[:, None, :]
    over_frames = _row_divergence(similarity, interaction, real, temperature)
    over_words = _row_divergence(similarity.mT, interaction.mT, real.mT, temperature)
    of_words = (text.weights.detach() * over_frames).sum(-1)
    of_frames = (video.weights.detach() * over_words).sum(-1)
    return 0.5 * (of_words + of_frames).mean()


def _row_divergence(student: Tensor, target: Tensor, real: Tensor, temperature: float) -> Tensor:
    """(B, N, M) -> (B, N): KL of each row's softmax from its target's, over real entries."""
    lowest = torch.finfo(student.dtype).min
    target = target.detach()
    target = target / target.abs().amax(-1, keepdim=True).clamp_min(1e-6)
    of_student, of_target = (
        (part / temperature).masked_fill(~real, lowest).log_softmax(-1) for part in (student, target)
    )
    return (of_target.exp() * (of_target - of_student)).masked_fill(~real, 0).sum(-1)


def released_kl(prediction: Tensor, target: Tensor) -> Tensor:
    """KL as the released code has it: softmax over the last axis, mean over all elements."""
    return F.kl_div(prediction.log_softmax(-1), target.softmax(-1), reduction="none").mean()


def released_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What the released code distils with: raw similarities, and a gradient into the teacher too."""
    return released_kl(student, teacher) + released_kl(student.T, teacher.T)


def released_alignment_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """What the released code aligns with: over frames for each word, and over the batch for each pair of tokens.

    Args:
        student: (B, T, V), a level's estimate of the interactions.
        teacher: (B, T, V), that of an estimator trained before; held fixed.
    """
    teacher = teacher.detach()
    return released_kl(student, teacher) + released_kl(student.permute(2, 1, 0), teacher.permute(2, 1, 0))


def mean_squared_error(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over real entries; the released code, which trains its estimator so, counts padding as zeros."""
    return (estimate - target).square().masked_fill(~mask, 0).sum() / mask.sum()
