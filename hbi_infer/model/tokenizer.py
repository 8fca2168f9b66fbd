"""A text to token ids, through the `tokenizers` library, from one JSON file that a bundle carries.

Most bundles have CLIP's byte-pair encoding, which is built here. Its cleaning is done in Python; cutting into words and
the encoding itself are done by `tokenizers`. The file holds either CLIP's whole vocabulary of 49,408 tokens or, for a
small model trained from scratch, only the part of it that a corpus uses. Other kinds lie beside this file.
"""

from __future__ import annotations

import gzip
import html
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.built_tokenizer import BuiltTokenizer, check_ids, check_template
from hbi_infer.model.sentence_piece import byte_pairs_from, unigram_from
from hbi_infer.model.strict_json import parse_strictly
from hbi_infer.model.word_piece import word_piece_from

if TYPE_CHECKING:
    import tokenizers

SOT = "<|startoftext|>"
EOT = "<|endoftext|>"
PAD_ID = 0
"""Id at unused positions of CLIP's texts. It is a real token ("!"), so only the mask tells padding."""

END_OF_WORD = "</w>"
PIECE_NAMES = {SOT: "[start]", EOT: "[end]"}

# Runs of letters, single digits and runs of anything else but blanks; the ends of "it's" and "we'll" are words of their
# own. Without regard to case, as published: the text is in lower case, but a long s (U+017F) counts as an s.
WORD_PATTERN = r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+)"


@dataclass(frozen=True)
class Truncation:
    """The place at which a text that is too long was cut.

    Attributes:
        word: The first blank-separated word that was not kept whole, as cleaned.
        word_number: Place of that word in the text, counted from 1.
    """

    word: str
    word_number: int


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of B texts, padded to T tokens.

    Attributes:
        ids: (B, T) int64: the start, if the kind has one, the tokens of the text, the end, then padding.
        mask: (B, T) bool, True on real tokens, start and end included.
        truncated: (B,) the place where each text was cut, None if it was kept whole.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    truncated: tuple[Truncation | None, ...]


class Tokenizer:
    """Texts to token ids.

    >>> tokenizer = Tokenizer.from_json(clip_tokenizer_json())
    >>> tokenizer.encode(["two men", "cars"], max_words=32).ids
    array([[49406,  1237,  1656, 49407],
           [49406,  3346, 49407,     0]])
    """

    def __init__(self, built: BuiltTokenizer) -> None:
        # `tokenizers` would take special tokens out of a text wherever they stand. CLIP does so only where a word
        # begins (not in "!<|endoftext|>"), so they are cut as words and replaced by `_encode`; other kinds never do.
        built.backend.encode_special_tokens = True
        self._built, self._backend = built, built.backend
        vocabulary = built.backend.get_vocab()
        self._special_ids = {token: vocabulary[token] for token in (built.start, built.end) if token is not None}

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Builds a tokenizer from the JSON that `clip_tokenizer_json`, or a function of another kind, returns.

        Only the vocabulary and the merges are taken from it. Everything else must be as this version writes it, or as
        a plain list of words needs it: another normalizer or pattern might never end.

        Raises:
            BundleError: The text is not the JSON of a known kind of tokenizer.
        """
        try:
            return cls(_built_from(parse_strictly(text)))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            raise BundleError(f"not a tokenizer's JSON: {_one_line(exc)}; export the bundle again") from exc

    @classmethod
    def from_file(cls, path: Path | str) -> Tokenizer:
        """Reads a tokenizer.json.

        Raises:
            BundleError: The file cannot be read, or is not the JSON of a known kind of tokenizer.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise BundleError(f"cannot read the tokenizer {path}: {exc}") from exc
        try:
            return cls.from_json(text)
        except BundleError as exc:
            raise BundleError(f"{path}: {exc}") from exc

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens; every id is below it."""
        return self._backend.get_vocab_size()

    def vocabulary(self) -> dict[str, int]:
        """Returns the id of each token."""
        return self._backend.get_vocab()

    @property
    def sot_id(self) -> int:
        """Id of the token that begins every text.

        Raises:
            BundleError: No token begins the texts of this kind of tokenizer.
        """
        if self._built.start is None:
            raise BundleError("the tokenizer has no token that begins a text, as models that write texts need it")
        return self._special_ids[self._built.start]

    @property
    def eot_id(self) -> int:
        """Id of the token that ends every text."""
        return self._special_ids[self._built.end]

    def encode(self, texts: Sequence[str], max_words: int, *, pad_to: int | None = None) -> TokenBatch:
        """Encodes texts, and cuts those of more than `max_words` tokens.

        Args:
            texts: B texts in any case and encoding mess; they are cleaned. An empty text gives start and end alone.
            max_words: Largest number of tokens of a text, start and end included (a word may take several tokens).
            pad_to: T; None pads to the length that the tokenizer states, or else to the longest text of the batch.

        Raises:
            InputError: `max_words` has no room for start and end, or `pad_to` none for `max_words`.
        """
        if max_words < 2:
            raise InputError(f"max_words is {max_words}; it must be at least 2, for the start and the end of a text")
        if pad_to is not None and pad_to < max_words:
            raise InputError(f"pad_to is {pad_to}; it must be at least max_words ({max_words})")
        length = self._built.length
        kept = (max_words if length is None else min(max_words, length)) - len(self._special_ids)
        encoded = [self._encode(self._built.clean(text), kept) for text in texts]
        longest = max((len(ids) for ids, _ in encoded), default=0)
        width = pad_to if pad_to is not None else length if length is not None else longest
        ids = np.full((len(encoded), width), self._built.pad_id, dtype=np.int64)
        mask = np.zeros((len(encoded), width), dtype=np.bool_)
        for row, (tokens, _) in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return TokenBatch(ids, mask, tuple(truncation for _, truncation in encoded))

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens, in lower case, without start and end; bytes that are no text are replaced.

        >>> tokenizer = Tokenizer.from_json(clip_tokenizer_json())
        >>> tokenizer.decode(tokenizer.encode(["Two wobblers, it's true"], max_words=32).ids[0].tolist())
        "two wobblers, it's true"
        """
        return self._built.text([self._backend.id_to_token(token_id) or "" for token_id in ids])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""Returns the piece of text that each token stands for, to be read by people.

        A piece that does not end its word ends in "·"; bytes that are no letter by themselves are shown as \xf0.

        >>> tokenizer = Tokenizer.from_json(clip_tokenizer_json())
        >>> tokenizer.pieces(tokenizer.encode(["two wobblers"], max_words=32).ids[0].tolist())
        ['[start]', 'two', 'wob·', 'blers', '[end]']
        """
        return self._built.pieces([self._backend.id_to_token(token_id) or "" for token_id in ids])

    def _encode(self, text: str, num_kept: int) -> tuple[list[int], Truncation | None]:
        """Returns start, the first `num_kept` ids of a cleaned text and end, and the place where it was cut."""
        # One at a time: a batch starts threads, which a process that forks later (workers of a loader) must not have.
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, starts = encoding.ids, [start for start, _ in encoding.offsets]
        if self._built.end == EOT and (SOT in text or EOT in text):
            ids, starts = self._with_special_ids(text, encoding)
        truncation = None
        if len(ids) > num_kept:
            # A token of SentencePiece begins with the blank before its word.
            word_index = text.count(" ", 0, starts[num_kept] + 1)
            truncation = Truncation(text.split(" ")[word_index], word_index + 1)
        start = [] if self._built.start is None else [self.sot_id]
        return [*start, *ids[:num_kept], self.eot_id], truncation

    def _with_special_ids(self, text: str, encoding: tokenizers.Encoding) -> tuple[list[int], list[int]]:
        """Returns ids and start positions of an encoded text, with each word that is SOT or EOT as its one id."""
        ids: list[int] = []
        starts: list[int] = []
        tokens = zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True)
        for _, group in itertools.groupby(tokens, key=lambda token: token[2]):
            word = list(group)
            start, end = word[0][1][0], word[-1][1][1]
            special_id = self._special_ids.get(text[start:end])
            ids += [token_id for token_id, _, _ in word] if special_id is None else [special_id]
            starts += [offsets[0] for _, offsets, _ in word] if special_id is None else [start]
        return ids, starts


def clean(text: str) -> str:
    """Cleans a text as CLIP does: mended (ftfy), without HTML escapes or runs of blanks, in lower case."""
    # Printable ASCII without "&" is left alone by ftfy: its other steps mend wrongly decoded bytes, ligatures, full
    # width letters, curly quotes, surrogates, control characters and composition, and none of those is in such a text.
    # Nor is there an HTML escape without "&". So the common text is spared an import of some 30 ms.
    if "&" in text or not (text.isascii() and text.isprintable()):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def clip_tokenizer_json(corpus: Iterable[str] | None = None) -> str:
    """Returns the JSON of CLIP's tokenizer.

    Args:
        corpus: Texts whose tokens to keep; None keeps all 49,408. The smaller vocabulary has the 512 byte symbols, the
            merges that encoding the corpus uses, in their order, SOT and EOT (the last two ids). It cuts the corpus
            exactly as the whole one does: every step applies the first merge of the list that fits, and that one was
            kept. Any other text is cut as well, into shorter pieces.
    """
    merges = _clip_merges()
    if corpus is not None:
        merges = _used_merges(merges, corpus)
    return _build_json(_vocabulary(merges), merges)


def clip_tokenizer_json_from_folder(folder: Path | str) -> str:
    """Returns the JSON of a CLIP tokenizer that `transformers` saved: tokenizer.json, or vocab.json with merges.txt.

    Only the vocabulary and the merges are taken over; cleaning and word cutting are those of CLIP as published.

    Raises:
        InputError: The folder holds neither, or a tokenizer that is not CLIP's kind.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            model = content["model"]
            vocabulary = {**model["vocab"], **{token["content"]: token["id"] for token in content["added_tokens"]}}
            merges, unknown = model["merges"], model["unk_token"]
            is_clip = (model["type"], model["end_of_word_suffix"]) == ("BPE", END_OF_WORD)
        else:
            path = folder / "merges.txt"
            # The first line is a version.
            merges, unknown, is_clip = path.read_text(encoding="utf-8").split("\n")[1:], EOT, True
            merges = [line for line in merges if line]
            path = folder / "vocab.json"
            vocabulary = json.loads(path.read_text(encoding="utf-8"))
        if not (is_clip and SOT in vocabulary and EOT in vocabulary):
            raise InputError(f"{path} is not a CLIP tokenizer: it needs byte-pair encoding with {SOT} and {EOT}")
        known = unknown if unknown in vocabulary else None
        return _build_json(vocabulary, [_as_pair(merge) for merge in merges], unknown=known)
    except FileNotFoundError as exc:
        raise InputError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt: not CLIP's folder"
        ) from exc
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise InputError(f"{path} is not a tokenizer that transformers saved: {exc!r}") from exc


Merge = tuple[str, str]


def _as_pair(merge: Any) -> Merge:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _clip_merges() -> list[Merge]:
    """Returns CLIP's 48,894 merges, in order."""
    packed = resources.files("hbi_infer").joinpath("data/clip_merges.txt.gz").read_bytes()
    return [_as_pair(line) for line in gzip.decompress(packed).decode().split("\n")]


def _used_merges(merges: Sequence[Merge], corpus: Iterable[str]) -> list[Merge]:
    """Returns the merges that encoding the corpus applies, in their order.

    Each token of CLIP's vocabulary comes from one merge only, so the tokens of a text tell all the merges behind them.
    """
    full = Tokenizer.from_json(_build_json(_vocabulary(merges), merges))
    origin = {left + right: (left, right) for left, right in merges}
    encode = full._backend.encode
    words = {word for text in corpus for word in clean(text).split(" ")}  # no token reaches over a blank
    pending = {token for word in words for token in encode(word, add_special_tokens=False).tokens}
    used: set[Merge] = set()
    while pending:
        merge = origin.get(pending.pop())
        if merge and merge not in used:
            used.add(merge)
            pending.update(merge)
    return [merge for merge in merges if merge in used]


@cache
def _byte_symbols() -> dict[str, int]:
    """Returns the byte that each character of a token stands for, in CLIP's order."""
    # Bytes that print as themselves in Latin-1 come first; the others are moved past 255, in order.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _text(tokens: Sequence[str]) -> str:
    symbols = _byte_symbols() | {" ": ord(" ")}
    joined = "".join(token.replace(END_OF_WORD, " ") for token in tokens if token not in PIECE_NAMES)
    text = bytes(symbols[symbol] for symbol in joined).decode(errors="replace").strip()
    # Punctuation and the ends of "it's" are words of their own, and stand close to the word before.
    return re.sub(r" (?=[,.;:!?%)]|'(?:s|t|re|ve|m|ll|d)\b)", "", text)


def _pieces(tokens: Sequence[str]) -> list[str]:
    return [_piece(token) for token in tokens]


def _piece(token: str) -> str:
    """Returns a token of the vocabulary as people read it."""
    if token in PIECE_NAMES:
        return PIECE_NAMES[token]
    is_end = token.endswith(END_OF_WORD)
    symbols = _byte_symbols()
    text = bytes(symbols[symbol] for symbol in token.removesuffix(END_OF_WORD)).decode(errors="backslashreplace")
    return text if is_end else f"{text}·"


def _vocabulary(merges: Iterable[Merge]) -> dict[str, int]:
    """Returns token ids in CLIP's order: byte symbols, those at the end of a word, merged tokens, SOT, EOT."""
    symbols = list(_byte_symbols())
    merged = [left + right for left, right in merges]
    tokens = [*symbols, *(symbol + END_OF_WORD for symbol in symbols), *merged, SOT, EOT]
    return {token: token_id for token_id, token in enumerate(tokens)}


def _build_json(vocabulary: Mapping[str, int], merges: Sequence[Merge], *, unknown: str | None = None) -> str:
    """Returns the JSON of a tokenizer with CLIP's word cutting and this vocabulary."""
    return _build(vocabulary, merges, unknown).to_str()


def _build(vocabulary: Mapping[str, int], merges: Sequence[Merge], unknown: str | None) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    try:
        model = models.BPE(dict(vocabulary), list(merges), end_of_word_suffix=END_OF_WORD, unk_token=unknown)
    except Exception as exc:  # the library raises nothing more special
        raise ValueError(f"the vocabulary and the merges do not fit together: {exc}") from exc
    backend = Backend(model)
    # `clean` has done this already; other users of the file may not call it.
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (SOT, EOT)])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{SOT} $0 {EOT}", special_tokens=[(token, vocabulary[token]) for token in (SOT, EOT)]
    )
    return backend


def _build_words(vocabulary: Mapping[str, int], unknown: str) -> tokenizers.Tokenizer:
    """Builds a tokenizer of whole words between blanks, for models whose texts are lists of known words."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordLevel(dict(vocabulary), unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _built_from(document: dict[str, Any]) -> BuiltTokenizer:
    """Builds a tokenizer from its JSON document, which is checked.

    Raises:
        ValueError: It is not as this version writes it; says where.
    """
    kind = document["model"].get("type")
    if kind == "WordPiece":
        return word_piece_from(document)
    if kind == "Unigram":
        return unigram_from(document)
    if kind == "BPE" and document["model"].get("byte_fallback") is True:
        return byte_pairs_from(document)
    return BuiltTokenizer(
        backend=_clip_from(document),
        start=SOT,
        end=EOT,
        pad_id=PAD_ID,
        length=None,
        clean=clean,
        pieces=_pieces,
        text=_text,
    )


def _clip_from(document: dict[str, Any]) -> tokenizers.Tokenizer:
    model = document["model"]
    vocabulary, unknown = model.pop("vocab"), model.pop("unk_token")
    _check_vocabulary(vocabulary)
    few = {token: vocabulary[token] for token in (SOT, EOT)}
    if model.get("type") == "WordLevel":
        check_template(document, _build_words(few, EOT))
        if not isinstance(unknown, str) or unknown not in vocabulary:
            raise ValueError(f"model.unk_token is {unknown!r:.80}; it must be a token")
        return _build_words(vocabulary, unknown)
    merges = [_as_pair(merge) for merge in model.pop("merges")]
    check_template(document, _build(few, [], None))
    if unknown not in (None, EOT):
        raise ValueError(f"model.unk_token is {unknown!r:.80}; it must be null or {EOT!r}")
    return _build(vocabulary, merges, unknown)


def _check_vocabulary(vocabulary: Any) -> None:
    if not isinstance(vocabulary, dict) or not {SOT, EOT} <= vocabulary.keys():
        raise ValueError(f"it has no {SOT} or no {EOT}; a CLIP tokenizer has both")
    check_ids(vocabulary, (SOT, EOT))
    symbols = _byte_symbols().keys()
    if foreign := set("".join(vocabulary)) - symbols:
        raise ValueError(f"it has tokens with {min(foreign)!r}, which stands for no byte")


def _one_line(error: Exception) -> str:
    """Returns what an error says; of a missing key, says that it is one."""
    text = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
