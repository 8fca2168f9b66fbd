"""WordPiece against `transformers`, and documents that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.tokenizer import Tokenizer, Truncation
from hbi_infer.model.word_piece import word_piece_json, word_piece_json_from_document

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("dog", "dogs", "run", "beach", "on", "the", "a", "é", "日", "本", "!", ".", ",", "[", "]", "-", "'")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{letter}" for letter in LETTERS), "##ning"]
VOCABULARY = {token: number for number, token in enumerate([*TOKENS, *(letter for letter in LETTERS if letter != "a")])}


def tokenizer(**options: Any) -> Tokenizer:
    return Tokenizer.from_json(word_piece_json(VOCABULARY, **options))


def theirs(lowercase: bool = True) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.BertTokenizer(vocab=VOCABULARY, do_lower_case=lowercase)


TEXTS = st.lists(
    st.sampled_from(["dog", "Running", "beach!", "É", "日本", "[SEP]x", "\t", "zzz", "cafe\u0301"])
    | st.text(max_size=8)
).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(text=TEXTS, lowercase=st.booleans())
def test_ids_are_those_of_transformers(text: str, lowercase: bool) -> None:
    # A special token that is written out is a word here, and never the token itself.
    text = text.replace("[SEP]", "[ SEP ]")
    if any(token in text for token in ("[PAD]", "[UNK]", "[CLS]", "[MASK]")):
        return
    text = text.encode("utf-8", "replace").decode()
    # Blanks of Python that are control characters to BERT would join the words beside them.
    if any(not letter.isprintable() for letter in text.replace("\t", " ")):
        return
    expected = theirs(lowercase)(text)["input_ids"]
    assert tokenizer(lowercase=lowercase).encode([text], 10_000).ids[0].tolist() == expected


def test_special_tokens_in_a_text_are_words() -> None:
    ids = tokenizer().encode(["a [SEP] dog"], 32).ids[0].tolist()
    assert ids.count(VOCABULARY["[SEP]"]) == 1
    assert ids[-1] == VOCABULARY["[SEP]"] == tokenizer().eot_id
    assert ids[0] == VOCABULARY["[CLS]"] == tokenizer().sot_id


def test_padding_and_cutting() -> None:
    batch = tokenizer().encode(["a dog running on the beach", "a dog"], 6)
    assert batch.ids.shape == (2, 6)
    assert (batch.ids[1][~batch.mask[1]] == VOCABULARY["[PAD]"]).all()
    assert batch.truncated == (Truncation("on", 4), None)
    assert batch.mask.sum(axis=1).tolist() == [6, 4]


def test_pieces_and_text_are_readable() -> None:
    ids = tokenizer().encode(["Running dogs!"], 32).ids[0].tolist()
    assert tokenizer().pieces(ids) == ["[sentence]", "run·", "ning", "dogs", "!", "[end]"]
    assert tokenizer().decode(ids) == "running dogs !"


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_document_of_transformers_is_taken_over(lowercase: bool) -> None:
    saved = json.loads(theirs(lowercase).backend_tokenizer.to_str())
    saved["padding"] = {"strategy": {"Fixed": 128}}  # left out, as is truncation
    made = Tokenizer.from_json(word_piece_json_from_document(json.dumps(saved)))
    text = "Running on the BEACH, a dog"
    np.testing.assert_array_equal(made.encode([text], 64).ids, tokenizer(lowercase=lowercase).encode([text], 64).ids)
    assert made.encode([text], 64).ids[0].tolist() == theirs(lowercase)(text)["input_ids"]


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(word_piece_json(VOCABULARY))
    return made


EDITS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d["model"].update(max_input_chars_per_word=10**9), "model.max_input_chars_per_word is 1000000000"),
    (lambda d: d["model"].update(continuing_subword_prefix=""), "model.continuing_subword_prefix is ''"),
    (lambda d: d["model"].update(unk_token="a"), "model.unk_token is 'a'"),
    (lambda d: d["model"]["vocab"].pop("[UNK]"), "it has no [UNK]"),
    (lambda d: d["model"]["vocab"].update(dog=10**9), "are not the numbers from 0 on"),
    (lambda d: d["model"].update(vocab=[]), "its vocabulary is []"),
    (lambda d: d["normalizer"].update(lowercase=3), "normalizer.lowercase is 3"),
    (lambda d: d["normalizer"].update(strip_accents=True), "normalizer.strip_accents is True"),
    (lambda d: d.update(normalizer=None), "NoneType"),
    (lambda d: d.update(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}), "normalizer"),
    (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer.type is 'Whitespace'"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_a_document_that_is_not_as_written_is_one_line(edit: Callable[[dict[str, Any]], object], message: str) -> None:
    changed = document()
    edit(changed)
    with pytest.raises(BundleError, match="not a tokenizer's JSON: ") as caught:
        Tokenizer.from_json(json.dumps(changed))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not a WordPiece tokenizer as BERT's") as refused:
        word_piece_json_from_document(json.dumps(changed))
    assert "\n" not in str(refused.value)


def test_a_bundle_takes_no_padding_from_the_file() -> None:
    with pytest.raises(BundleError, match="padding is "):
        Tokenizer.from_json(json.dumps(document() | {"padding": {"strategy": {"Fixed": 10**12}}}))
