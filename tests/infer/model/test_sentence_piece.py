"""SigLIP's tokenizers against `transformers`, against the definition, and documents that are none."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.sentence_piece import byte_pair_json, siglip_tokenizer_json_from_folder, unigram_json
from hbi_infer.model.tokenizer import Tokenizer, Truncation

LETTERS = string.ascii_lowercase
PIECES = [
    ("<pad>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -3.0),
    ("▁a", -2.5),
    ("▁dog", -5.0),
    ("▁do", -4.0),
    ("s", -3.5),
    ("▁run", -6.0),
    ("ning", -5.5),
    *((letter, -8.0) for letter in LETTERS if letter != "s"),
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MERGES = [("d", "o"), ("do", "g"), ("▁", "a"), ("▁", "dog"), ("r", "u"), ("ru", "n"), ("▁", "run")]
BPE_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTES, "▁", *LETTERS, "!", "."]
BPE = {token: number for number, token in enumerate([*BPE_TOKENS, *(left + right for left, right in MERGES)])}


def unigram(length: int | None = None) -> Tokenizer:
    return Tokenizer.from_json(unigram_json(PIECES, 2, length=length))


def byte_pairs(length: int | None = None) -> Tokenizer:
    return Tokenizer.from_json(byte_pair_json(BPE, MERGES, length=length))


def likeliest(text: str) -> float:
    """The best log-probability of all ways to cut a text, by the definition."""
    scores = dict(PIECES[3:])
    best = [0.0] + [-float("inf")] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = max(best[start] + scores.get(text[start:end], -float("inf")) for start in range(end))
    return best[-1]


@settings(deadline=None)
@given(st.text(alphabet=" adogsrunig", max_size=24))
def test_a_unigram_text_is_cut_into_its_likeliest_tokens(text: str) -> None:
    tokenizer, words = unigram(), text.split()
    ids = tokenizer.encode([text], 1000).ids[0].tolist()
    assert ids[-1] == 1
    tokens = [PIECES[token_id] for token_id in ids[:-1]]
    cleaned = "".join(f"▁{word}" for word in words)
    assert "".join(token for token, _ in tokens) == cleaned
    assert sum(score for _, score in tokens) == pytest.approx(likeliest(cleaned))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A Dog.", ["▁a", "▁dog", "</s>"]),
        ("  a - dogs!? ", ["▁a", "▁dog", "s", "</s>"]),
        ("\uff41 \uff24\uff2f\uff27", ["▁a", "▁dog", "</s>"]),  # full width
        ("a [dog]_running's", ["▁a", "▁dog", "r", "u", "n", "ning", "s", "</s>"]),
        ("a 日", ["▁a", "▁", "<unk>", "</s>"]),
        ("</s>", ["▁", "s", "</s>"]),
        ("", ["</s>"]),
        (string.punctuation, ["</s>"]),
    ],
)
def test_unigram_texts_are_lower_case_and_without_punctuation(text: str, tokens: list[str]) -> None:
    ids = unigram().encode([text], 64).ids[0].tolist()
    assert [PIECES[token_id][0] for token_id in ids] == tokens


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "Dog", "dogs", "RUN", "!", "日本", "\U0001f600"]) | st.text("adogrun", max_size=6))
)
def test_byte_pairs_are_those_of_transformers(words: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    text = " ".join(filter(None, words))
    theirs = transformers.Siglip2Tokenizer(vocab=BPE, merges=MERGES)
    expected = theirs(text, add_special_tokens=False)["input_ids"]
    ids = byte_pairs().encode([text], 1000).ids[0].tolist()
    assert ids == [*expected, BPE["<eos>"]]


@pytest.mark.parametrize("make", [unigram, byte_pairs])
def test_texts_are_padded_to_the_length_of_the_model(make: Callable[[int | None], Tokenizer]) -> None:
    tokenizer = make(8)
    pad_id = 1 if make is unigram else BPE["<pad>"]
    batch = tokenizer.encode(["a dog", "a dog a dog a dog a dog a dog"], 64)
    assert batch.ids.shape == (2, 8)
    assert batch.ids[0].tolist()[3:] == [pad_id] * 5
    assert batch.mask.sum(axis=1).tolist() == [3, 8]
    assert batch.truncated == (None, Truncation("dog", 8))
    assert batch.ids[1, -1] == tokenizer.eot_id
    assert make(None).encode(["a dog"], 64).ids.shape == (1, 3)


def test_no_token_begins_a_text() -> None:
    for tokenizer in (unigram(), byte_pairs()):
        with pytest.raises(BundleError, match="has no token that begins a text"):
            _ = tokenizer.sot_id


def test_pieces_and_texts_are_readable() -> None:
    ids = unigram().encode(["a dogs"], 64).ids[0].tolist()
    assert unigram().pieces(ids) == ["a", "dog·", "s", "[end]"]
    assert unigram().decode(ids) == "a dogs"
    ids = byte_pairs().encode(["run é"], 64).ids[0].tolist()
    assert byte_pairs().pieces(ids) == ["run", "·", "\\xc3·", "\\xa9", "[end]"]
    assert byte_pairs().decode(ids) == "run é"


# Folders that `transformers` saved.


def test_a_folder_of_siglip_2(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.Siglip2Tokenizer(vocab=BPE, merges=MERGES).save_pretrained(tmp_path)
    made = Tokenizer.from_json(siglip_tokenizer_json_from_folder(tmp_path, length=16))
    assert made.encode(["A dog!"], 16).ids.tolist() == byte_pairs(16).encode(["A dog!"], 16).ids.tolist()


def test_a_folder_of_siglip(tmp_path: Path) -> None:
    document = json.loads(unigram_json(PIECES, 2, length=None))
    document["normalizer"] = None  # as models were trained, whatever the file says
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    made = Tokenizer.from_json(siglip_tokenizer_json_from_folder(tmp_path, length=16))
    assert made.encode(["A dog!"], 16).ids.tolist() == unigram(16).encode(["A dog!"], 16).ids.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no tokenizer.json: download the model's tokenizer too"),
        ("{", "is not SigLIP's tokenizer"),
        ("[]", "is not SigLIP's tokenizer"),
        (
            '{"model": {"type": "WordPiece"}}',
            "model.type is 'WordPiece'; SigLIP has Unigram, or BPE with byte_fallback",
        ),
        ('{"model": {"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 0}}', "it has no </s>"),
        ('{"model": {"type": "BPE", "byte_fallback": true, "vocab": {}, "merges": []}}', "it has no <eos>"),
        (
            json.dumps({"model": {"type": "BPE", "byte_fallback": True, "vocab": BPE, "merges": ["x1 y1"]}}),
            "the vocabulary and the merges do not fit together",
        ),
    ],
)
def test_folders_that_are_not_siglips(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        siglip_tokenizer_json_from_folder(tmp_path, length=64)
    assert "\n" not in str(caught.value)


# Documents of bundles.


def explode(document: dict[str, Any]) -> None:
    doubles = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    document["normalizer"] = {"type": "Sequence", "normalizers": [doubles] * 60}


COMMON: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (explode, "normalizer.normalizers is [{'type': 'Replace'"),
    (lambda d: d.update(pre_tokenizer={"type": "ByteLevel"}), "pre_tokenizer is "),
    (lambda d: d["padding"]["strategy"].update(Fixed=10**12), "padding.strategy.Fixed is 1000000000000"),
    (lambda d: d["padding"].update(strategy="BatchLongest"), "indices"),
    (lambda d: d["padding"].update(pad_id=7), "padding.pad_id is 7"),
    (lambda d: d["padding"].update(direction="Left"), "padding.direction is 'Left'"),
    (lambda d: d.update(added_tokens=[{"content": "a"}]), "added_tokens is "),
    (lambda d: d.update(post_processor=None), "post_processor is None"),
]
UNIGRAM: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d["model"].update(byte_fallback=True), "model.byte_fallback is True"),
    (lambda d: d["model"].update(unk_id=10**6), "model.unk_id is 1000000"),
    (lambda d: d["model"].update(unk_id=None), "model.unk_id is None"),
    (lambda d: d["model"]["vocab"].append(["a", 1]), "its tokens are not texts, each once"),
    (lambda d: d["model"]["vocab"].append([3, 1]), "its tokens are not texts, each once"),
    (lambda d: d["model"]["vocab"].append(["new", "1"]), "the scores of its tokens are not finite numbers"),
    (lambda d: d["model"]["vocab"].append(["x"]), "not enough values"),
    (lambda d: d["model"]["vocab"].pop(1), "it has no </s>"),
]
BYTE_PAIRS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d["model"].update(dropout=0.5), "model.dropout is 0.5"),
    (lambda d: d["model"].update(fuse_unk=False), "model.fuse_unk is False"),
    (lambda d: d["model"]["vocab"].pop("<pad>"), "it has no <pad>"),
    (lambda d: d["model"]["vocab"].update(dog=-1), "are not the numbers from 0 on"),
    (lambda d: d["model"]["merges"].append(["unheard", "of"]), "do not fit together"),
]


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        *(("unigram", *case) for case in [*COMMON, *UNIGRAM]),
        *(("byte pairs", *case) for case in [*COMMON, *BYTE_PAIRS]),
    ],
)
def test_a_document_that_is_not_as_written_is_one_line(
    kind: str, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    text = unigram_json(PIECES, 2, length=16) if kind == "unigram" else byte_pair_json(BPE, MERGES, length=16)
    document = json.loads(text)
    edit(document)
    with pytest.raises(BundleError, match="not a tokenizer's JSON: ") as caught:
        Tokenizer.from_json(json.dumps(document))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
