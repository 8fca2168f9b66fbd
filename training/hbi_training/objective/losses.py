"""Terms of the training objective, computed from similarities and interactions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hbi_training.model.token_interaction import Tokens


def contrastive_loss(similarity: Tensor, scale: Tensor, hard_negatives: Tensor | None = None) -> Tensor:
    """Computes symmetric InfoNCE (CVPR 2023, equation 5): the diagonal against its row and against its column.

    Args:
        similarity: Similarities (B, B), texts in rows, videos in columns; pair i is at (i, i).
        scale: exp of the logit scale, a scalar.
        hard_negatives: Similarities (B, K) of each video with its own texts that are nearly but not true of it; further
            candidates for the video.
    """
    target = torch.arange(len(similarity), device=similarity.device)
    of_text = scale * similarity
    of_video = of_text.T
    if hard_negatives is not None:
        of_video = torch.cat([of_video, scale * hard_negatives], dim=1)
    return 0.5 * (F.cross_entropy(of_text, target) + F.cross_entropy(of_video, target))


def pair_contrastive_loss(matched: Tensor, shifted: Sequence[Tensor], scale: Tensor, wrong: Tensor) -> Tensor:
    """Computes InfoNCE of each side against a few partners, for pairs that cost too much to compare all with all.

    Args:
        matched: Similarities (B,) of text i and video i.
        shifted: Similarities (B,) of text (i + s) modulo B and video i, for each shift s = 1, 2, ...
        scale: exp of the logit scale, a scalar.
        wrong: Similarities (B, K) of each video with its own texts that are nearly but not true of it.
    """
    target = torch.zeros(len(matched), dtype=torch.int64, device=matched.device)
    of_video = torch.cat([torch.stack([matched, *shifted], dim=1), wrong], dim=1)
    of_text = torch.stack([matched, *(part.roll(s) for s, part in enumerate(shifted, start=1))], dim=1)
    return 0.5 * (F.cross_entropy(scale * of_text, target) + F.cross_entropy(scale * of_video, target))


def distillation_loss(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """Computes the KL of a level's match distributions from those of the entity level, over texts and over videos.

    Similarities are (B, B). The logits carry the temperature, the teacher is held fixed and rows are averaged; the
    released code (`released_distillation_loss`) uses raw similarities, lets the gradient into the teacher and divides
    by the row length as well.
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
    """Draws the similarities of a pair's tokens to their Banzhaf interactions (CVPR 2023, section 3.3).

    For each word, the student is the distribution over frames that its cosines give, and the target, held fixed, is the
    one that its interactions give; for each frame likewise over words. Interactions are small where many tokens share
    the weight, so each row is divided by its largest; a row counts by the weight of its token.

    Args:
        similarity: Cosines (B, T, V).
        interaction: Interactions (B, T, V).
        text: Weights and mask of the words.
        video: Weights and mask of the frames.
        temperature: Temperature of both distributions.

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
    """Computes the KL of each row's softmax from its target's over real entries: (B, N, M) -> (B, N)."""
    lowest = torch.finfo(student.dtype).min
    target = target.detach()
    target = target / target.abs().amax(-1, keepdim=True).clamp_min(1e-6)
    of_student, of_target = (
        (part / temperature).masked_fill(~real, lowest).log_softmax(-1) for part in (student, target)
    )
    return (of_target.exp() * (of_target - of_student)).masked_fill(~real, 0).sum(-1)


def entropy_shortfall(tokens: Tokens, floor: float) -> Tensor:
    """Computes by how much the entropy of the weights of B texts or videos falls below a floor, on average.

    The entropy is divided by its largest value, log of the number of real tokens; an item of one token has no entropy
    and falls short of nothing.
    """
    weights = tokens.weights.float()
    # 1 has no entropy either, and the gradient of the entropy at 0 is infinite.
    entropy = torch.special.entr(torch.where(weights > 0, weights, 1.0)).sum(-1)
    number = tokens.mask.sum(-1)
    share = entropy / number.clamp_min(2).log()
    return (floor - share).clamp_min(0).masked_fill(number < 2, 0).mean()


def released_kl(prediction: Tensor, target: Tensor) -> Tensor:
    """Computes the released code's KL of (B, ..., N): softmax over the last axis, mean over all elements."""
    return F.kl_div(prediction.log_softmax(-1), target.softmax(-1), reduction="none").mean()


def released_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the released code's distillation of (B, B): raw similarities, and a gradient into the teacher too."""
    return released_kl(student, teacher) + released_kl(student.T, teacher.T)


def released_alignment_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the released code's alignment, over frames for each word and over the batch for each pair of tokens.

    Args:
        student: Estimate of a level's interactions, (B, T, V).
        teacher: Estimate by an estimator trained before, (B, T, V); held fixed.
    """
    teacher = teacher.detach()
    return released_kl(student, teacher) + released_kl(student.permute(2, 1, 0), teacher.permute(2, 1, 0))


def mean_squared_error(estimate: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Averages squared errors (B, T, V) over real entries; the released code counts padding as zeros here."""
    return (estimate - target).square().masked_fill(~mask, 0).sum() / mask.sum()
