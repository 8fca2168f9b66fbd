"""Queries, questions and captions, tokenized and encoded once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from hbi_infer.errors import InputError
from hbi_infer.model.encoder import Encoder
from hbi_infer.model.tokenizer import TokenBatch
from hbi_infer.tokens.levels import Levels, item

LETTERS_SHOWN = 60
"""Number of letters of a long text that a warning shows."""


class QueryTruncatedWarning(UserWarning):
    """A text is longer than the model takes; the model ignores the words behind the cut."""


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """B texts with their token ids and their tokens.

    Attributes:
        texts: (B,) the texts as given.
        batch: Their token ids.
        levels: Their tokens, a batch of B.
    """

    texts: tuple[str, ...]
    batch: TokenBatch
    levels: Levels

    def __len__(self) -> int:
        """The batch size B."""
        return len(self.texts)

    def item(self, row: int) -> Levels:
        """Returns the tokens of one text, as a batch of one."""
        return item(self.levels, row)

    @property
    def cut_at_words(self) -> tuple[int | None, ...]:
        """(B,) for each text the number of the word, from 1, at which it was too long; None if it was kept whole."""
        return tuple(cut.word_number if cut else None for cut in self.batch.truncated)


def encode_texts(encoder: Encoder, texts: Sequence[str], kind: str) -> EncodedTexts:
    """Tokenizes and encodes B texts.

    Args:
        encoder: The model.
        texts: At least one sentence.
        kind: Name of such a text in messages: "query", "caption" or "question".

    Raises:
        InputError: There is no text, or one is empty.

    Warns:
        QueryTruncatedWarning: A text is too long.
    """
    if not texts:
        raise InputError(f"there is no {kind}: give at least one")
    for text in texts:
        if not text.strip():
            raise InputError(f"a {kind} is empty: give a sentence that says what to find")
    batch = encoder.tokenize(texts)
    limit = encoder.bundle.manifest.max_words
    for text, cut in zip(texts, batch.truncated, strict=True):
        if cut is not None:
            warnings.warn(
                f"the {kind} {_beginning(text)!r} is longer than the {limit} tokens that the model takes: cut at word "
                f"{cut.word_number}, {_beginning(cut.word)!r}",
                QueryTruncatedWarning,
                stacklevel=3,
            )
    return EncodedTexts(tuple(texts), batch, encoder.encode_tokens(batch))


def pieces_of(encoder: Encoder, texts: EncodedTexts, row: int = 0) -> list[str]:
    """Returns the pieces of one of the texts, token by token, as `Tokenizer.pieces` writes them."""
    return encoder.tokenizer.pieces(texts.batch.ids[row, texts.batch.mask[row]].tolist())


def _beginning(text: str) -> str:
    return text if len(text) <= LETTERS_SHOWN else f"{text[:LETTERS_SHOWN]}..."
