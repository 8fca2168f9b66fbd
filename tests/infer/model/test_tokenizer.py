from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.tokenizer import (
    EOT,
    PAD_ID,
    SOT,
    Tokenizer,
    Truncation,
    _clip_merges,
    clean,
    clip_tokenizer_json,
    clip_tokenizer_json_from_folder,
)
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "tokenizer.json").read_text())
CASES = GOLDEN["cases"]
CORPUS = [case["text"] for case in CASES]


@cache
def clip() -> Tokenizer:
    return Tokenizer.from_json(clip_tokenizer_json())


@cache
def small() -> Tokenizer:
    return Tokenizer.from_json(clip_tokenizer_json(CORPUS))


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of a text as strings, SOT and EOT included."""
    ids = tokenizer.encode([text], max_words=10_000).ids[0]
    return [str(tokenizer._backend.id_to_token(token_id)) for token_id in ids]


# Golden: the released code.


def test_vocabulary_is_as_released() -> None:
    assert (clip().vocabulary_size, clip().sot_id, clip().eot_id) == (GOLDEN["vocab"], GOLDEN["sot"], GOLDEN["eot"])


@pytest.mark.parametrize("case", CASES, ids=[repr(case["text"][:24]) for case in CASES])
def test_tokens_are_as_released(case: dict[str, list[str]]) -> None:
    assert tokens(clip(), str(case["text"])) == [SOT, *case["tokens"], EOT]


@pytest.mark.parametrize("max_words", [8, 24, 32])
def test_ids_and_masks_are_as_released(max_words: int) -> None:
    batch = clip().encode(CORPUS, max_words, pad_to=max_words)
    np.testing.assert_array_equal(batch.ids, [case[f"ids_{max_words}"] for case in CASES])
    np.testing.assert_array_equal(batch.mask, [case[f"mask_{max_words}"] for case in CASES])
    assert (batch.ids.dtype, batch.mask.dtype) == (np.dtype(np.int64), np.dtype(np.bool_))
    assert [cut is not None for cut in batch.truncated] == [len(case["ids"]) > max_words - 2 for case in CASES]


# An independent encoder, by the definition: apply the earliest merge of the list wherever it fits, until none does.


@cache
def ranks() -> dict[tuple[str, str], int]:
    return {merge: rank for rank, merge in enumerate(_clip_merges())}


def encode_by_definition(text: str) -> list[str]:
    words = re.findall(
        rf"{re.escape(SOT)}|{re.escape(EOT)}|'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()
    )
    result = []
    for word in words:
        pieces = [word] if word in (SOT, EOT) else [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: ranks().get(pair, len(ranks())))
            if best not in ranks():
                break
            joined: list[str] = []
            for piece in pieces:
                if joined and (joined[-1], piece) == best:
                    joined[-1] += piece
                else:
                    joined.append(piece)
            pieces = joined
        result += pieces
    return result


ASCII_TEXTS = st.lists(
    st.sampled_from(
        ["<|startoftext|>", "<|endoftext|>", "'s", "'ll", "!", "<|", "?!...", "isn't", "Circle", "ing", "42"]
    )
    | st.text(alphabet=[chr(code) for code in range(32, 127) if chr(code) != "&"], max_size=12)
    | st.just(" ")
).map("".join)


@settings(deadline=None)
@given(ASCII_TEXTS)
def test_encoding_is_byte_pair_encoding_by_its_definition(text: str) -> None:
    assert tokens(clip(), text) == [SOT, *encode_by_definition(text), EOT]


def test_special_strings_count_only_where_a_word_begins() -> None:
    assert tokens(clip(), f"a{EOT}{SOT} b")[1:-1] == ["a</w>", EOT, SOT, "b</w>"]
    assert EOT not in tokens(clip(), f"!{EOT}")[1:-1]


# Cleaning.


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Two\tRED \n squares ", "two red squares"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("â€™s", "'s"),
        ("ﬁnancial", "financial"),
        ("caf\u0065\u0301", "café"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("half a pair \ud83d", "half a pair \ufffd"),
        ("", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@settings(deadline=None)
@given(st.text(alphabet=[chr(code) for code in range(32, 127) if chr(code) != "&"]))
def test_ftfy_leaves_plain_text_alone(text: str) -> None:
    import ftfy

    assert ftfy.fix_text(text) == text


def test_plain_text_imports_no_ftfy_and_starts_no_threads() -> None:
    # A process with threads of its own must not fork, and loaders of training data do.
    code = """
import sys
from pathlib import Path
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
assert "tokenizers" not in sys.modules
tokenizer = Tokenizer.from_json(clip_tokenizer_json(["a red circle"]))
tasks = Path("/proc/self/task")
before = len(list(tasks.iterdir())) if tasks.exists() else 0
tokenizer.encode(["a red circle"] * 1000, 32)
assert (len(list(tasks.iterdir())) if tasks.exists() else 0) == before
assert "ftfy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Shapes, padding, cutting.


def test_batch_is_padded_to_its_longest_text() -> None:
    batch = clip().encode(["cars", "two men", ""], max_words=32)
    assert batch.ids.tolist() == [[49406, 3346, 49407, PAD_ID], [49406, 1237, 1656, 49407], [49406, 49407, 0, 0]]
    assert batch.mask.sum(axis=1).tolist() == [3, 4, 2]


def test_no_texts_give_an_empty_batch() -> None:
    batch = clip().encode([], max_words=32, pad_to=32)
    assert (batch.ids.shape, batch.mask.shape, batch.truncated) == ((0, 32), (0, 32), ())


def test_truncation_names_the_word() -> None:
    # "supercalifragilisticexpialidocious" takes nine tokens: the cut falls inside the fourth word.
    text = "A very  Long supercalifragilisticexpialidocious word"
    batch = clip().encode([text, "short"], max_words=8)
    assert batch.truncated == (Truncation("supercalifragilisticexpialidocious", 4), None)
    assert batch.ids[0, -1] == clip().eot_id
    assert clip().encode([f"{EOT} a b"], max_words=3).truncated == (Truncation("a", 2),)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | ASCII_TEXTS, max_size=4), st.integers(2, 12))
def test_every_text_starts_and_ends_and_fits(texts: list[str], max_words: int) -> None:
    batch = small().encode(texts, max_words, pad_to=12)
    whole = small().encode(texts, 1000)
    for row, text in enumerate(texts):
        ids, length = batch.ids[row], int(batch.mask[row].sum())
        assert batch.mask[row, :length].all()
        assert length <= max_words
        assert (ids[0], ids[length - 1]) == (small().sot_id, small().eot_id)
        assert (ids[length:] == PAD_ID).all()
        kept = whole.ids[row, : length - 1]
        np.testing.assert_array_equal(ids[: length - 1], kept)
        cut = batch.truncated[row]
        assert (cut is None) == (whole.mask[row].sum() <= max_words)
        if cut is not None:
            assert clean(text).split(" ")[cut.word_number - 1] == cut.word


@pytest.mark.parametrize(
    ("max_words", "pad_to", "message"),
    [(1, None, "max_words is 1; it must be at least 2"), (8, 7, r"pad_to is 7; it must be at least max_words \(8\)")],
)
def test_lengths_that_cannot_be(max_words: int, pad_to: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clip().encode(["a"], max_words, pad_to=pad_to)


# The vocabulary of a corpus.


def test_corpus_vocabulary_is_small_and_ordered() -> None:
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(["a red circle"]))
    vocabulary = tokenizer._backend.get_vocab()
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocabulary_size))
    assert (tokenizer.sot_id, tokenizer.eot_id) == (tokenizer.vocabulary_size - 2, tokenizer.vocabulary_size - 1)
    assert {token: vocabulary[token] for token in clip()._backend.get_vocab() if token in vocabulary} == vocabulary
    merged = sorted((token for token in vocabulary if vocabulary[token] >= 512), key=vocabulary.__getitem__)[:-2]
    # circle = cir(c + ir) + cle(c + le), red = re + d: nothing else
    assert set(merged) == {"re", "red</w>", "ir", "cir", "le</w>", "cle</w>", "circle</w>"}
    everything = clip()._backend.get_vocab()
    assert merged == sorted(merged, key=everything.__getitem__)


@settings(max_examples=20, deadline=None)  # each builds the whole vocabulary anew
@given(st.lists(st.text(max_size=40) | ASCII_TEXTS, min_size=1, max_size=20))
def test_corpus_is_cut_as_by_the_whole_vocabulary(corpus: list[str]) -> None:
    tokenizer = Tokenizer.from_json(clip_tokenizer_json(corpus))
    for text in corpus:
        assert tokens(tokenizer, text) == tokens(clip(), text)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_other_texts_lose_nothing(text: str) -> None:
    def joined(tokenizer: Tokenizer) -> str:
        return "".join(tokens(tokenizer, text))

    assert joined(small()) == joined(clip())
    assert small().encode([text], 10_000).ids.max() < small().vocabulary_size


def test_json_is_complete_on_its_own() -> None:
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(clip_tokenizer_json())
    assert backend.encode("Two Men").ids == [49406, 1237, 1656, 49407]


# Files.


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(clip_tokenizer_json(["a red circle"]), encoding="utf-8")
    assert tokens(Tokenizer.from_file(path), "a red circle") == [SOT, "a</w>", "red</w>", "circle</w>", EOT]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the tokenizer .*tokenizer.json"),
        ("", "tokenizer.json: not a tokenizer's JSON"),
        ('{"model": 3}', "tokenizer.json: not a tokenizer's JSON"),
        (clip_tokenizer_json([]).replace("startoftext", "begin"), "has no <|startoftext|>"),
        ("\udcff", "cannot read the tokenizer"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=message.replace("|", r"\|")):
        Tokenizer.from_file(path)


@pytest.fixture(params=["list merges", "string merges", "vocab.json and merges.txt"])
def clip_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """CLIP's tokenizer in each of the forms in which `transformers` has saved it."""
    content = json.loads(clip_tokenizer_json(CORPUS))
    model = content["model"]
    if request.param == "vocab.json and merges.txt":
        (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [" ".join(merge) for merge in model["merges"]]
        (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return tmp_path
    if request.param == "string merges":
        model["merges"] = [" ".join(merge) for merge in model["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return tmp_path


def test_folder_gives_the_same_tokenizer(clip_folder: Path) -> None:
    tokenizer = Tokenizer.from_json(clip_tokenizer_json_from_folder(clip_folder))
    np.testing.assert_array_equal(tokenizer.encode(CORPUS, 24).ids, small().encode(CORPUS, 24).ids)


def test_folder_saved_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = json.loads(clip_tokenizer_json(CORPUS))["model"]
    theirs = transformers.CLIPTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_json(clip_tokenizer_json_from_folder(tmp_path))
    texts = [case["text"] for case in CASES if case["text"].isascii() and "&" not in case["text"]]
    assert len(texts) > 10
    assert [ids[mask].tolist() for ids, mask in zip(*_ids_and_mask(ours, texts), strict=True)] == theirs(texts)[
        "input_ids"
    ]


def _ids_and_mask(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    batch = tokenizer.encode(texts, 100)
    return batch.ids, batch.mask


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither tokenizer.json nor vocab.json and merges.txt"),
        ({"vocab.json": "{}"}, "has neither"),
        ({"tokenizer.json": "{"}, "tokenizer.json is not a tokenizer that transformers saved"),
        ({"tokenizer.json": "[]"}, "is not a tokenizer that transformers saved"),
        ({"tokenizer.json": '{"model": {"type": "WordPiece"}, "added_tokens": []}'}, "is not a tokenizer"),
        ({"vocab.json": "{}", "merges.txt": "#version: 0.2\n"}, "is not a CLIP tokenizer"),
        ({"vocab.json": json.dumps({SOT: 0, EOT: 1}), "merges.txt": "#\na b c\n"}, "vocab.json is not a tokenizer"),
        ({"vocab.json": json.dumps({SOT: 0, EOT: 1}), "merges.txt": "#\na b\n"}, "do not fit together"),
        ({"vocab.json": json.dumps({SOT: "0", EOT: 1}), "merges.txt": "#\n"}, "do not fit together"),
    ],
)
def test_folders_that_are_no_clip(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        clip_tokenizer_json_from_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a red circle moves left, and then it spins",
        "it's 12 o'clock!",
        "grünes quadrat",
        "日本",
        "first a; then b: c?",
        "",
    ],
)
def test_decoding_gives_the_text_back(text: str) -> None:
    ids = clip().encode([text], max_words=40).ids[0].tolist()
    spaced = {"it's 12 o'clock!": "it's 1 2 o ' clock!"}  # digits and a lone quote are words
    assert clip().decode(ids) == spaced.get(text, text)


def test_decoding_what_is_no_text() -> None:
    half_a_letter = clip().encode(["日"], max_words=40).ids[0, 1:2].tolist()
    assert isinstance(clip().decode(half_a_letter), str)
    assert clip().decode([10**7]) == ""


def small_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(clip_tokenizer_json(["a red circle"]))
    return document


def exploding(document: dict[str, Any]) -> None:
    doubles = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    document["normalizer"] = {"type": "Sequence", "normalizers": [doubles] * 60}


def slow_pattern(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"(a|aa)+$"


def renumbered(document: dict[str, Any], **ids: Any) -> None:
    document["model"]["vocab"].update(ids)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (exploding, "normalizer is {'type': 'Sequence'"),
        (slow_pattern, "pre_tokenizer.pretokenizers is [{'type': 'Split'"),
        (lambda d: d.update(padding={"strategy": {"Fixed": 10**12}}), "padding is "),
        (lambda d: d.update(truncation={"max_length": 1}), "truncation is "),
        (lambda d: d["model"].update(dropout=0.5), "model.dropout is 0.5; it must be None"),
        (lambda d: d["model"].update(type="Other"), "model.type is 'Other'; it must be 'BPE'"),
        (lambda d: d["model"].update(type="Unigram"), "model.vocab is {"),
        (lambda d: d["model"].update(type="WordPiece"), "it has no [CLS] or no [SEP]"),
        (lambda d: d["model"].update(byte_fallback=True), "it has no <eos> or no <pad>"),
        (lambda d: d["model"].update(unk_token="!"), r"model.unk_token is '!'; it must be null or '<|endoftext|>'"),
        (lambda d: d["added_tokens"].append(d["added_tokens"][0]), "added_tokens is "),
        (lambda d: d.update(more=1), "the document is "),
        (lambda d: d["model"].pop("vocab"), "it has no 'vocab'"),
        (lambda d: d["model"].update(vocab=[1]), "it has no <|startoftext|> or no <|endoftext|>"),
        (lambda d: d["model"]["vocab"].pop(EOT), "it has no <|startoftext|> or no <|endoftext|>"),
        (lambda d: renumbered(d, a=0), "are not the numbers from 0 on, each once"),
        (lambda d: renumbered(d, a=-1), "are not the numbers from 0 on"),
        (lambda d: renumbered(d, a=10**6), "are not the numbers from 0 on"),
        (lambda d: renumbered(d, a=True), "are not the numbers from 0 on"),
        (lambda d: renumbered(d, a="1"), "are not the numbers from 0 on"),
        (
            lambda d: renumbered(d, 日=len(d["model"]["vocab"])),
            "it has tokens with '日', which stands for no byte",
        ),
        (lambda d: renumbered(d, **{"a b": len(d["model"]["vocab"])}), "it has tokens with ' '"),
        (lambda d: renumbered(d, **{"\ud800": len(d["model"]["vocab"])}), r"it has tokens with '\ud800'"),
        (lambda d: d["model"]["merges"].append(["unheard", "of"]), "do not fit together"),
        (lambda d: d["model"]["merges"].append(["a"]), "not enough values"),
        (lambda d: d["model"]["merges"].append(3), "int"),
        (lambda d: d.update(model=3), "int"),
    ],
)
def test_a_tokenizer_that_this_version_does_not_write_is_one_line(
    edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    document = small_document()
    edit(document)
    with pytest.raises(BundleError, match="not a tokenizer's JSON: ") as caught:
        Tokenizer.from_json(json.dumps(document))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"model": {}, "model": {}}', "null", '{"model": null}', "\0"])
def test_what_is_no_document_is_one_line(text: str) -> None:
    with pytest.raises(BundleError, match="not a tokenizer's JSON: "):
        Tokenizer.from_json(text)


def test_a_list_of_words() -> None:
    words = {"a": 0, "red": 1, "circle": 2, SOT: 3, EOT: 4}
    document = {
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "a"},
    }
    tokenizer = Tokenizer.from_json(json.dumps(document))
    assert tokenizer.encode(["red circle blue"], 8).ids.tolist() == [[3, 1, 2, 0, 4]]
    for change in ({"normalizer": {"type": "Lowercase"}}, {"model": {**document["model"], "unk_token": "x"}}):
        with pytest.raises(BundleError, match=r"normalizer is|model\.unk_token is 'x'"):
            Tokenizer.from_json(json.dumps(document | change))


def test_merges_as_older_versions_wrote_them() -> None:
    document = small_document()
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    del document["model"]["ignore_merges"]
    assert Tokenizer.from_json(json.dumps(document)).vocabulary() == document["model"]["vocab"]
