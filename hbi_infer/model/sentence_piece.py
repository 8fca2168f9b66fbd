"""SentencePiece as SigLIP uses it: a blank is a letter of its own ("▁"), and tokens may hold it.

SigLIP's vocabulary is a unigram model: each token has a log-probability, and a text is cut into the likeliest tokens.
SigLIP 2's, which is Gemma's, is a byte-pair encoding, in which a letter of no token is cut into its bytes. Texts of
both are in lower case. SigLIP removes punctuation besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbi_infer.errors import InputError
from hbi_infer.model.built_tokenizer import BuiltTokenizer, check_ids, check_template, padded_length, plain
from hbi_infer.model.strict_json import parse_strictly

if TYPE_CHECKING:
    import tokenizers

BLANK = "▁"
UNIGRAM_END, UNKNOWN = "</s>", "<unk>"
BPE_END, BPE_PADDING = "<eos>", "<pad>"
PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
MADE = (UNIGRAM_END, BPE_END, BPE_PADDING, "<bos>")

Piece = tuple[str, float]
"""A token of a unigram model, and its log-probability."""

Merge = tuple[str, str]


def unigram_json(pieces: Sequence[Piece], unknown_id: int, *, length: int | None) -> str:
    """Returns the JSON of SigLIP's tokenizer.

    Args:
        pieces: Tokens in the order of their ids, `</s>` among them, which ends a text and pads it.
        unknown_id: Id of the token for letters that no token has.
        length: Number of tokens that every text is padded to; None for that of the longest text of a batch.
    """
    ids = {token: number for number, (token, _) in enumerate(pieces)}
    return _padded(_build_unigram(pieces, unknown_id, ids[UNIGRAM_END]), UNIGRAM_END, ids[UNIGRAM_END], length).to_str()


def byte_pair_json(vocabulary: Mapping[str, int], merges: Sequence[Merge], *, length: int | None) -> str:
    """Returns the JSON of SigLIP 2's tokenizer.

    Args:
        vocabulary: Token -> id, the numbers from 0 on, with `<eos>`, which ends a text, `<pad>`, `<unk>` and the bytes.
        merges: Pairs of tokens that are joined, the first one first.
        length: Number of tokens that every text is padded to; None for that of the longest text of a batch.
    """
    backend = _build_byte_pairs(vocabulary, merges, vocabulary[BPE_END])
    return _padded(backend, BPE_PADDING, vocabulary[BPE_PADDING], length).to_str()


def siglip_tokenizer_json_from_folder(folder: Path | str, *, length: int | None) -> str:
    """Returns the JSON of the tokenizer of a SigLIP or SigLIP 2 whose tokenizer.json `transformers` saved.

    The vocabulary is taken over; texts are cleaned as the models were trained.

    Args:
        folder: Folder with tokenizer.json.
        length: Number of tokens that the model takes.

    Raises:
        InputError: The file is missing, or is another kind of tokenizer.
    """
    path = Path(folder) / "tokenizer.json"
    try:
        document = parse_strictly(path.read_text(encoding="utf-8"))
        model = document["model"]
        if model["type"] == "Unigram":
            pieces, unknown_id = _checked_pieces(model)
            return unigram_json(pieces, unknown_id, length=length)
        if (model["type"], model.get("byte_fallback")) != ("BPE", True):
            raise ValueError(f"model.type is {model['type']!r:.80}; SigLIP has Unigram, or BPE with byte_fallback")
        added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
        vocabulary = {**model["vocab"], **added}
        check_ids(vocabulary, (BPE_END, BPE_PADDING, UNKNOWN))
        return byte_pair_json(vocabulary, [_pair(merge) for merge in model["merges"]], length=length)
    except FileNotFoundError as exc:
        raise InputError(f"{path.parent} has no tokenizer.json: download the model's tokenizer too") from exc
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise InputError(f"{path} is not SigLIP's tokenizer: {' '.join(str(exc).split()):.300}") from exc


def unigram_from(document: dict[str, Any]) -> BuiltTokenizer:
    """Builds a tokenizer from its JSON document, which is checked.

    Raises:
        ValueError: It is not as `unigram_json` writes it; says where.
    """
    model = document["model"]
    pieces, unknown_id = _checked_pieces(model)
    del model["vocab"], model["unk_id"]
    end_id, length = [token for token, _ in pieces].index(UNIGRAM_END), padded_length(document)
    few = _build_unigram([(UNIGRAM_END, 0.0)], 0, end_id)
    check_template(document, _padded(few, UNIGRAM_END, end_id, length))
    backend = _build_unigram(pieces, unknown_id, end_id)
    return _built(backend, UNIGRAM_END, end_id, length)


def byte_pairs_from(document: dict[str, Any]) -> BuiltTokenizer:
    """Builds a tokenizer from its JSON document, which is checked.

    Raises:
        ValueError: It is not as `byte_pair_json` writes it; says where.
    """
    model = document["model"]
    vocabulary, merges = model.pop("vocab"), [_pair(merge) for merge in model.pop("merges")]
    check_ids(vocabulary, (BPE_END, BPE_PADDING, UNKNOWN))
    end_id, pad_id, length = vocabulary[BPE_END], vocabulary[BPE_PADDING], padded_length(document)
    few = _build_byte_pairs({UNKNOWN: 0}, [], end_id)
    check_template(document, _padded(few, BPE_PADDING, pad_id, length))
    return _built(_build_byte_pairs(vocabulary, merges, end_id), BPE_END, pad_id, length)


def _built(backend: tokenizers.Tokenizer, end: str, pad_id: int, length: int | None) -> BuiltTokenizer:
    return BuiltTokenizer(
        backend=backend,
        start=None,
        end=end,
        pad_id=pad_id,
        length=length,
        clean=plain,
        pieces=_readable,
        text=_text,
    )


def _checked_pieces(model: Any) -> tuple[list[Piece], int]:
    if not isinstance(model["vocab"], list):
        raise ValueError(f"model.vocab is {model['vocab']!r:.80}; it must be a list of tokens with their scores")
    pieces, unknown_id = [(token, score) for token, score in model["vocab"]], model["unk_id"]
    tokens = [token for token, _ in pieces]
    if UNIGRAM_END not in tokens:
        raise ValueError(f"it has no {UNIGRAM_END}")
    if any(type(token) is not str for token in tokens) or len(set(tokens)) < len(tokens):
        raise ValueError("its tokens are not texts, each once")
    if any(type(score) not in (int, float) or not math.isfinite(score) for _, score in pieces):
        raise ValueError("the scores of its tokens are not finite numbers")
    if type(unknown_id) is not int or not 0 <= unknown_id < len(tokens):
        raise ValueError(f"model.unk_id is {unknown_id!r:.80}; it must be the id of a token")
    return pieces, unknown_id


def _build_unigram(pieces: Sequence[Piece], unknown_id: int, end_id: int) -> tokenizers.Tokenizer:
    from tokenizers import Regex, models, normalizers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.Unigram(list(pieces), unknown_id, False))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(PUNCTUATION), ""),
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Replace(" ", BLANK),
            normalizers.Prepend(BLANK),
        ]
    )
    return _ended(backend, UNIGRAM_END, end_id)


def _build_byte_pairs(vocabulary: Mapping[str, int], merges: Sequence[Merge], end_id: int) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers

    try:
        model = models.BPE(dict(vocabulary), list(merges), unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    except Exception as exc:  # the library raises nothing more special
        raise ValueError(f"the vocabulary and the merges do not fit together: {exc}") from exc
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", BLANK)])
    return _ended(backend, BPE_END, end_id)


def _ended(backend: tokenizers.Tokenizer, end: str, end_id: int) -> tokenizers.Tokenizer:
    from tokenizers import processors

    backend.post_processor = processors.TemplateProcessing(single=f"$0 {end}", special_tokens=[(end, end_id)])
    return backend


def _padded(backend: tokenizers.Tokenizer, token: str, token_id: int, length: int | None) -> tokenizers.Tokenizer:
    if length is not None:
        backend.enable_padding(length=length, pad_id=token_id, pad_token=token)
    return backend


def _pair(merge: Any) -> Merge:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _readable(tokens: Sequence[str]) -> list[str]:
    """Returns tokens as people read them; a piece that does not end its word ends in "·"."""
    following = [*tokens[1:], UNIGRAM_END]
    return [_piece(token, after) for token, after in zip(tokens, following, strict=True)]


def _piece(token: str, after: str) -> str:
    if token in (UNIGRAM_END, BPE_END):
        return "[end]"
    text = BYTE.sub(lambda byte: rf"\x{byte[1].lower()}", token.removeprefix(BLANK))
    return text if after.startswith(BLANK) or after in MADE else f"{text}·"


def _text(tokens: Sequence[str]) -> str:
    content = bytearray()
    for token in tokens:
        if token in MADE:
            continue
        byte = BYTE.fullmatch(token)
        content += bytes.fromhex(byte[1]) if byte else token.replace(BLANK, " ").encode()
    return content.decode(errors="replace").strip()
