"""Neutral sentences, and the file in which a bundle brings its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbi_infer.api import HBI
from hbi_infer.errors import BundleError, ExportError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.neutral_texts import (
    background_file,
    encoded_texts,
    neutral_sentences,
    neutral_tokens,
)
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json, write_tiny_bundle

TEXTS = ["red", "a green video", *["blue"] * 40, "red and green and blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu", threads=1)


def with_background(folder: Path, content: bytes) -> HBI:
    write_bundle(folder, tiny_manifest(), tiny_graphs(), tokenizer_json(), {"background": content})
    return HBI.load(folder, device="cpu", threads=1)


def test_sentences_are_many_and_different() -> None:
    sentences = neutral_sentences()
    assert len(set(sentences)) == len(sentences) == 256
    assert all(sentence == sentence.strip() and sentence.isascii() and sentence for sentence in sentences)


def test_texts_of_different_lengths_are_padded_as_one_batch_is(model: HBI) -> None:
    expected = model.encode_text(TEXTS)
    for name, level in encoded_texts(model, TEXTS).items():
        size = level.tokens.shape[1]
        np.testing.assert_array_equal(level.weights, expected[name].weights[:, :size])
        real = level.weights > 0
        np.testing.assert_allclose(level.tokens[real], expected[name].tokens[:, :size][real], atol=1e-6)


def test_bundle_brings_its_own_sentences(model: HBI, tmp_path: Path) -> None:
    bringing = with_background(tmp_path / "b", background_file(TEXTS))
    assert bringing.bundle.manifest.background is not None
    bringing.bundle.verify()
    expected, read = encoded_texts(model, TEXTS), neutral_tokens(bringing)
    assert list(read) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(read[name].weights, expected[name].weights)
        np.testing.assert_array_equal(read[name].tokens, expected[name].tokens)
    assert len(next(iter(neutral_tokens(model).values()))) == 256, "the others are of everyday scenes"


def test_altered_file_is_refused(model: HBI, tmp_path: Path) -> None:
    bringing = with_background(tmp_path / "b", background_file(TEXTS))
    path = tmp_path / "b" / "background.txt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="altered or damaged"):
        neutral_tokens(bringing)
    path.unlink()
    with pytest.raises(BundleError, match=r"lacks background\.txt"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "hold ''; each is a line"),
        (b"\x80\x04", "is not UTF-8"),
        (b"red\n\nblue\n", "hold ''; each is a line"),
        (b"red\x1b[2J\n", "hold 'red.*; each is a line"),
        (b"r" * 3000, "hold 'rrr.*; each is a line"),
        (b"red\n" * 5000, "are 5000; there may be 1 to 4,096"),
    ],
)
def test_file_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=f"the background of .* {message}"):
        neutral_tokens(with_background(tmp_path / "b", content))


@pytest.mark.parametrize("texts", [[], ["red", " "], ["red\nblue"]])
def test_sentences_that_are_no_lines_are_not_written(texts: list[str]) -> None:
    with pytest.raises(ExportError, match="the neutral sentences"):
        background_file(texts)
