"""Answering questions: at each level a classifier reads the tokens of question and video, summed by learned weights.

TPAMI 2024, video question answering: a fixed list of answers, the levels' logits summed by their rates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens


class LevelAnswers(nn.Module):
    """Classifier of answers at one level."""

    def __init__(
        self,
        *,
        width: int,
        projection_width: int,
        hidden_width: int,
        num_answers: int,
        dropout: float,
        released: bool,
    ) -> None:
        super().__init__()
        self.released = released
        self.text_scorer, self.video_scorer = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2)
        )
        self.text_projection, self.video_projection = (nn.Linear(width, projection_width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Linear(2 * projection_width, hidden_width), nn.ReLU(), nn.Linear(hidden_width, num_answers)
        )

    def forward(self, text: Tokens, video: Tokens) -> Tensor:
        """Returns the logits (B, A) from text tokens (B, T, D) and video tokens (B, V, D)."""
        question = self.text_projection(self.pool(text, self.text_scorer(text.tokens)))
        clip = self.video_projection(self.pool(video, self.video_scorer(video.tokens)))
        return self.classifier(self.dropout(torch.cat([clip, question], dim=-1)))

    def pool(self, tokens: Tokens, score: Tensor) -> Tensor:
        """Sums tokens (B, N, D) by the softmax of their scores (B, N, 1): (B, D); padding does not count.

        In the released code padding takes a share of the softmax, so that the shares of real tokens sum to less than 1.
        """
        score = score.squeeze(-1).float()
        if not self.released:
            score = score.masked_fill(~tokens.mask, torch.finfo(score.dtype).min)
        share = score.softmax(-1) * tokens.mask.to(score.dtype)
        # (B, 1, N) @ (B, N, D) -> (B, 1, D) -> (B, D)
        return (share[:, None, :].to(tokens.tokens.dtype) @ tokens.tokens).squeeze(1)


class AnswerHead(nn.Module):
    """Computes the logits of a fixed list of answers from the tokens of question and video.

    Args:
        width: Width D of the tokens.
        projection_width: Width of the summed question and of the summed video before they are joined; 2,048 in the
            released code.
        hidden_width: Width of the classifier's hidden layer; 8,192 in the released code.
        num_answers: Number A of answers.
        level_rates: Factor of each level's logits.
        dropout: Rate of dropout on the joined projections, in training.
        released: Whether padding takes part in the softmax over tokens, as in the released code. Its merged levels have
            no padding; their masks must be all True.
    """

    def __init__(
        self,
        *,
        width: int,
        projection_width: int,
        hidden_width: int,
        num_answers: int,
        level_rates: tuple[float, ...] = (0.4, 0.4, 0.2),
        dropout: float = 0.1,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.level_rates = dict(zip(LEVELS, level_rates, strict=True))
        self.num_answers = num_answers
        self.levels = nn.ModuleDict(
            {
                level: LevelAnswers(
                    width=width,
                    projection_width=projection_width,
                    hidden_width=hidden_width,
                    num_answers=num_answers,
                    dropout=dropout,
                    released=released,
                )
                for level in LEVELS
            }
        )

    def forward(self, text: Mapping[str, Tokens], video: Mapping[str, Tokens]) -> dict[str, Tensor]:
        """Returns the logits (B, A) of B questions about B videos at each level."""
        return {level: answers(text[level], video[level]) for level, answers in self.levels.items()}

    def combine(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Sums the levels' logits by their rates: (B, A) each -> (B, A), from which the answer is chosen."""
        return torch.stack([rate * logits[level] for level, rate in self.level_rates.items()]).sum(0)
