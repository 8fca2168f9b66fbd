"""Answering questions: at each level the tokens of question and video, summed by learnt weights, go to a classifier.

TPAMI 2024, video question answering: a fixed list of answers, the levels' logits summed by their rates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens


class LevelAnswers(nn.Module):
    """The answers that one level gives."""

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
        """Tokens (B, T, D) and (B, V, D) -> logits (B, A)."""
        question = self.text_projection(self.pool(text, self.text_scorer(text.tokens)))
        clip = self.video_projection(self.pool(video, self.video_scorer(video.tokens)))
        return self.classifier(self.dropout(torch.cat([clip, question], dim=-1)))

    def pool(self, tokens: Tokens, score: Tensor) -> Tensor:
        """Tokens (B, N, D), summed by the softmax of their scores (B, N, 1): (B, D); padding counts nothing.

        In the released code padding takes its share of the softmax, and those of real tokens sum to less than 1.
        """
        score = score.squeeze(-1).float()
        if not self.released:
            score = score.masked_fill(~tokens.mask, torch.finfo(score.dtype).min)
        share = score.softmax(-1) * tokens.mask.to(score.dtype)
        # (B, 1, N) @ (B, N, D) -> (B, 1, D) -> (B, D)
        return (share[:, None, :].to(tokens.tokens.dtype) @ tokens.tokens).squeeze(1)


class AnswerHead(nn.Module):
    """Logits of a fixed list of answers, from the tokens of question and video.

    Args:
        width: D, of the tokens.
        projection_width: Of the summed question, and of the summed video, before they are joined; 2,048 in the released
            code.
        hidden_width: Of the classifier's hidden layer; 8,192 in the released code.
        num_answers: A.
        level_rates: What the logits of each level count.
        dropout: Of the joined projections, in training.
        released: Whether padding takes part in the softmax over tokens, as in the released code. Its merged levels know
            no padding, nor must their masks here.
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
        """Levels of B questions and B videos -> each level's logits (B, A)."""
        return {level: answers(text[level], video[level]) for level, answers in self.levels.items()}

    def combine(self, logits: Mapping[str, Tensor]) -> Tensor:
        """The levels' logits (B, A), summed by their rates: what an answer is chosen by."""
        return torch.stack([rate * logits[level] for level, rate in self.level_rates.items()]).sum(0)
