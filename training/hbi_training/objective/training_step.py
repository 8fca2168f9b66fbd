"""One forward pass of training, which encodes, compares, and sums the terms of the objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbi_training.banzhaf.estimator import BanzhafEstimator, load_estimator
from hbi_training.banzhaf.exact import banzhaf_interaction
from hbi_training.banzhaf.sampled import Game, sampled_banzhaf_interaction
from hbi_training.data.batches import Batch
from hbi_training.data.shapes.stills import Stills
from hbi_training.model.token_interaction import Tokens, TokensByLevel, items, pair_similarities
from hbi_training.objective.distributed import gather, gather_levels
from hbi_training.objective.losses import (
    alignment_loss,
    entropy_shortfall,
    pair_contrastive_loss,
    released_alignment_loss,
)
from hbi_training.objective.objective import Objective
from hbi_training.objective.self_critical import CaptionCritic
from hbi_training.objective.stills import StillHeads
from hbi_training.weights.checkpoint import Model

MAX_LOGIT_SCALE = math.log(100.0)
"""Largest logit scale, to which the trainer cuts it after each step."""

Pair = tuple[TokensByLevel, TokensByLevel]

IGNORED = -1
"""Target id that the loss ignores."""


def _cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Averages the cross-entropy over targets that are not ignored; 0 if all are."""
    total = F.cross_entropy(
        logits.float(), target, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / (target != IGNORED).sum().clamp_min(1)


class TrainingStep(nn.Module):
    """The model with all that its loss needs.

    Args:
        model: Model to train.
        objective: Terms of the loss.
        known_tokens: Tokens of every clip, if the parts that compute them are not trained; frames are then not read.
        known_features: Features (N, F, D) of every clip's frames, if the frame encoder is not trained; likewise.
        critic: Critic of captions, if the objective is self-critical.
        stills: Content of each frame (N, F) of every clip, if the objective asks for it.

    Raises:
        TrainingError: The objective needs a part that the model lacks.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        known_tokens: TokensByLevel | None = None,
        known_features: Tensor | None = None,
        critic: CaptionCritic | None = None,
        stills: Stills | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.known_tokens, self.known_features = known_tokens, known_features
        self.critic = critic
        self.stills = stills
        self.still_heads: StillHeads | None = None
        if objective.stills:
            vision = model.frame_encoder.vision.config
            self.still_heads = StillHeads(patch_width=vision.hidden_size, width=model.config.clip["projection_dim"])
        for term, task in objective.needed_tasks.items():
            model.require(task, f"the objective's {term}")
        if objective.self_critical and critic is None:
            raise ValueError("a self-critical objective needs a critic")
        self.students = nn.ModuleDict()
        self.teacher: BanzhafEstimator | None = None
        if objective.variant == "released" and objective.banzhaf:
            self.teacher = load_estimator(Path(objective.estimator)).requires_grad_(False)
            self.students.update({level: BanzhafEstimator(self.teacher.channels) for level in model.level_rates})

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of B clips, and each of its terms."""
        terms = self._still_terms(batch)
        if self.objective.reads_clips:
            video = self._encode_video(batch)
            terms |= self._comparing_terms(batch, video) if self.objective.compares else {}
            terms |= self._answer_terms(batch, video) | self._caption_terms(batch, video)
        return torch.stack(list(terms.values())).sum(), terms

    def _encode_video(self, batch: Batch) -> TokensByLevel:
        if self.known_tokens is not None and batch.clips is not None:
            return items(self.known_tokens, batch.clips)
        if self.known_features is not None and batch.clips is not None:
            return self.model.encode_features(self.known_features[batch.clips].flatten(0, 1), batch.frame_mask)
        return self.model.encode_video(batch.frames, batch.frame_mask)

    def _still_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Computes the term of one frame of each clip."""
        if self.still_heads is None or self.stills is None or batch.clips is None:
            return {}
        clips = torch.arange(len(batch.frames))
        chosen = (torch.rand(batch.frame_mask.shape) * batch.frame_mask.cpu()).argmax(-1)
        rows = batch.clips.cpu().numpy(), chosen.numpy()
        truth = Stills(*(part[rows] for part in vars(self.stills).values()))
        encoder = self.model.frame_encoder
        seen = encoder.see(encoder.normalise(batch.frames[clips, chosen]))
        return {"stills": self.objective.stills * self.still_heads.loss(seen, truth)}

    def _comparing_terms(self, batch: Batch, video: TokensByLevel) -> dict[str, Tensor]:
        """Computes the terms that compare each clip with its own and with other captions."""
        text = self.model.encode_text(batch.token_ids, batch.token_mask)
        wrong = None
        if batch.negative_ids is not None and batch.negative_mask is not None:
            wrong = self.model.encode_text(batch.negative_ids, batch.negative_mask)
        pairs = list(self._reconstructed_pairs(text, video, wrong)) if self.objective.reconstruction else []
        # Half precision would blur similarities, which are multiplied by up to 100.
        with torch.autocast(batch.frames.device.type, enabled=False):
            scale = self.model.logit_scale.exp()
            negatives = None
            if wrong is not None:
                negatives = {k: gather(v) for k, v in self.model.matched_similarity(wrong, video).items()}
            everywhere = gather_levels(text), gather_levels(video)
            terms = self.objective.similarity_terms(self.model.similarity(*everywhere), scale, negatives)
            if self.objective.weight_entropy:
                terms |= self._entropy_terms(text, video)
            if pairs:
                terms |= self._reconstruction_terms(pairs, scale)
            if self.objective.banzhaf:
                # The released alignment compares the pairs of the whole batch with one another.
                compared = (text, video) if self.teacher is None else everywhere
                terms |= self._alignment_terms(*compared, *(pairs[0] if pairs else (text, video)))
        return terms

    def _entropy_terms(self, text: TokensByLevel, video: TokensByLevel) -> dict[str, Tensor]:
        """Computes the penalty on weights of the first level that gather on few tokens."""
        first, floor = next(iter(text)), self.objective.weight_entropy_floor
        shortfall = 0.5 * (entropy_shortfall(text[first], floor) + entropy_shortfall(video[first], floor))
        return {"weight_entropy": self.objective.weight_entropy * shortfall}

    def _reconstructed_pairs(
        self, text: TokensByLevel, video: TokensByLevel, wrong: TokensByLevel | None
    ) -> Iterator[Pair]:
        """Reconstructs videos with their own texts, then with other clips' texts, then with nearly true texts."""
        model = self.model.require("rerank", "the objective's reconstruction")
        yield model.reconstruct(text, video)
        for shift in range(1, self.objective.reconstruction_negatives + 1):
            others = torch.arange(len(next(iter(text.values())).tokens)).roll(-shift)
            yield model.reconstruct(items(text, others), video)
        for k in range(self.objective.hard_negatives if wrong is not None else 0):
            own = slice(k, None, self.objective.hard_negatives)
            yield model.reconstruct(items(wrong or {}, own), video)

    def _reconstruction_terms(self, pairs: list[Pair], scale: Tensor) -> dict[str, Tensor]:
        """Computes the terms of reconstructed pairs on this device; all with all would cost a reconstruction each."""
        similarities = [self.model.matched_similarity(*pair) for pair in pairs]
        num_others = self.objective.reconstruction_negatives
        terms = {}
        for level in similarities[0]:
            matched, *rest = (similarity[level][:, 0] for similarity in similarities)
            wrong = torch.stack(rest[num_others:], dim=1) if rest[num_others:] else matched.new_empty(len(matched), 0)
            loss = pair_contrastive_loss(matched, rest[:num_others], scale, wrong)
            terms[f"reconstruction_{level}"] = self.objective.reconstruction * loss
        return terms

    def _answer_terms(self, batch: Batch, video: TokensByLevel) -> dict[str, Tensor]:
        """Computes the terms of the combined answer and, as deep supervision, of the levels' answers by their mean."""
        if not self.objective.answering or batch.question_ids is None or batch.question_mask is None:
            return {}
        model = self.model.require("qa", "the objective's answering")
        assert model.answer_head is not None
        assert batch.answers is not None
        times = len(batch.answers) // len(batch.frames)
        clips = torch.arange(len(batch.frames), device=batch.frames.device).repeat_interleave(times)
        questions = model.encode_text(batch.question_ids, batch.question_mask)
        logits = model.answer(questions, items(video, clips))
        combined = model.answer_head.combine(logits)
        losses = [_cross_entropy(part, batch.answers) for part in (combined, *logits.values())]
        levels = self.objective.deep_supervision * torch.stack(losses[1:]).mean()
        return {"answer": self.objective.answering * losses[0], "answer_levels": self.objective.answering * levels}

    def _caption_terms(self, batch: Batch, video: TokensByLevel) -> dict[str, Tensor]:
        """Computes the terms of captions.

        Cross-entropy predicts each word, given those before, of the captions that the clips are contrasted with. A
        critic, if any, rewards sampled captions.
        """
        if not self.objective.writes_captions:
            return {}
        model = self.model.require("caption", "writing captions")
        assert model.caption_decoder is not None
        memory = model.read(video)
        terms = {}
        if self.objective.captioning:
            logits = model.caption_decoder(batch.token_ids[:, :-1], memory)
            following = batch.token_ids[:, 1:].masked_fill(~batch.token_mask[:, 1:], IGNORED)
            loss = _cross_entropy(logits.flatten(0, 1), following.flatten(), self.objective.label_smoothing)
            terms["caption"] = self.objective.captioning * loss
        if self.objective.self_critical and self.critic is not None and batch.clips is not None:
            reward = self.critic.loss(model.caption_decoder, memory, batch.clips)
            terms["self_critical"] = self.objective.self_critical * reward
        return terms

    def _alignment_terms(
        self, text: TokensByLevel, video: TokensByLevel, target_text: TokensByLevel, target_video: TokensByLevel
    ) -> dict[str, Tensor]:
        """Computes the alignment of pairs with the interactions of the target's tokens, or with the estimator's."""
        terms = {}
        for level in text:
            similarity = pair_similarities(text[level], video[level])
            if self.teacher is not None:
                loss = self._released_alignment(level, similarity, text[level], video[level])
            else:
                target = self._interaction(target_text[level], target_video[level])
                temperature = self.objective.banzhaf_temperature
                loss = alignment_loss(similarity, target, text[level], video[level], temperature)
            terms[f"banzhaf_{level}"] = self.objective.banzhaf * loss
        return terms

    @torch.no_grad()
    def _interaction(self, text: Tokens, video: Tokens) -> Tensor:
        """Returns the interactions (B, T, V) of matched pairs, exact or sampled."""
        game = Game(pair_similarities(text, video), text.weights, video.weights, text.mask, video.mask)
        if self.objective.banzhaf_samples:
            return sampled_banzhaf_interaction(game, num_samples=self.objective.banzhaf_samples)
        return banzhaf_interaction(*game)

    def _released_alignment(self, level: str, similarity: Tensor, text: Tokens, video: Tokens) -> Tensor:
        assert self.teacher is not None
        # All tokens of the released merging are real, so that padding is left out of its first level alone.
        mask = text.mask[:, :, None] & video.mask[:, None, :]
        with torch.no_grad():
            target = self.teacher(similarity, mask)
        return released_alignment_loss(self.students[level](similarity, mask), target)
