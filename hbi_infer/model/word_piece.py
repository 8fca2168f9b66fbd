"""BERT's WordPiece: words, and pieces of words that begin with ##, as sentence encoders such as MiniLM use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hbi_infer.errors import InputError
from hbi_infer.model.built_tokenizer import BuiltTokenizer, check_ids, check_template, plain
from hbi_infer.model.content_words import MARKS, SENTENCE
from hbi_infer.model.strict_json import parse_strictly

if TYPE_CHECKING:
    import tokenizers

START, END, PADDING, UNKNOWN = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
CONTINUED = "##"
"""Beginning of a piece that goes on with a word."""

LONGEST_WORD = 100
"""Number of characters of a word beyond which it counts as unknown, as BERT has it."""

PIECE_NAMES = {START: SENTENCE, END: MARKS[1]}
"""Names of tokens as people read them. The first one stands for the whole sentence in models of sentences."""


def word_piece_json(vocabulary: Mapping[str, int], *, lowercase: bool = True) -> str:
    """Returns the JSON of a WordPiece tokenizer.

    Args:
        vocabulary: Token -> id, the numbers from 0 on.
        lowercase: Whether texts are cut in lower case and without accents.
    """
    return _build(vocabulary, lowercase).to_str()


def word_piece_json_from_document(text: str) -> str:
    """Returns the JSON of the WordPiece tokenizer that a tokenizer.json of `transformers` describes.

    The vocabulary is taken over, and whether texts are in lower case. Padding and truncation are left to `Tokenizer`.

    Raises:
        InputError: It is another kind of tokenizer, or cleans texts in another way than BERT.
    """
    try:
        document = parse_strictly(text)
        model, normalizer = document["model"], document["normalizer"]
        vocabulary = model.pop("vocab")
        check_ids(vocabulary, (START, END, PADDING, UNKNOWN))
        lowercase = normalizer["lowercase"]
        if type(lowercase) is not bool:
            raise ValueError(f"normalizer.lowercase is {lowercase!r:.80}; it must be true or false")
        parts = {name: document[name] for name in ("normalizer", "pre_tokenizer", "model")}
        check_template(parts, _build(_few(vocabulary), lowercase))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise InputError(f"not a WordPiece tokenizer as BERT's: {' '.join(str(exc).split()):.300}") from exc
    return word_piece_json(vocabulary, lowercase=lowercase)


def word_piece_from(document: dict[str, Any]) -> BuiltTokenizer:
    """Builds a tokenizer from its JSON document, which is checked.

    Raises:
        ValueError: It is not as `word_piece_json` writes it; says where.
    """
    vocabulary = document["model"].pop("vocab")
    check_ids(vocabulary, (START, END, PADDING, UNKNOWN))
    lowercase = document["normalizer"].get("lowercase") is True
    check_template(document, _build(_few(vocabulary), lowercase))
    return BuiltTokenizer(
        backend=_build(vocabulary, lowercase),
        start=START,
        end=END,
        pad_id=vocabulary[PADDING],
        length=None,
        clean=plain,
        pieces=_pieces,
        text=_text,
    )


def _few(vocabulary: Mapping[str, int]) -> dict[str, int]:
    return {token: vocabulary[token] for token in (START, END, PADDING, UNKNOWN)}


def _build(vocabulary: Mapping[str, int], lowercase: bool) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    model = models.WordPiece(dict(vocabulary), unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
    backend = Backend(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUED)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $0 {END}", special_tokens=[(token, vocabulary[token]) for token in (START, END)]
    )
    return backend


def _pieces(tokens: Sequence[str]) -> list[str]:
    """Returns tokens as people read them; a piece that does not end its word ends in "·"."""
    following = [*tokens[1:], ""]
    return [
        PIECE_NAMES.get(token, token.removeprefix(CONTINUED) + "·" * after.startswith(CONTINUED))
        for token, after in zip(tokens, following, strict=True)
    ]


def _text(tokens: Sequence[str]) -> str:
    words = (token for token in tokens if token not in (START, END, PADDING))
    return " ".join(words).replace(f" {CONTINUED}", "")
