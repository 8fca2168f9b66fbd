"""A CLIP-like model whose files have been read: two towers, and how its scores are meant."""

from __future__ import annotations

from dataclasses import dataclass

from hbi_infer.convert.preprocessing import Preprocessing
from hbi_infer.convert.towers import TextTower, VisionTower
from hbi_infer.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class DualEncoder:
    """A model of texts and pictures.

    Attributes:
        vision: Encoder of pictures.
        text: Encoder of texts.
        preprocessing: How pictures are made.
        tokenizer_json: Text of the tokenizer's file.
        logit_scale: Factor of a cosine where a softmax over cosines, or a sigmoid of one, is taken.
        logit_bias: Term that is added before the sigmoid; None for models that were trained with a softmax.
    """

    vision: VisionTower
    text: TextTower
    preprocessing: Preprocessing
    tokenizer_json: str
    logit_scale: float
    logit_bias: float | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the texts."""
        return Tokenizer.from_json(self.tokenizer_json)
