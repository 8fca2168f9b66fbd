"""Neutral sentences, and the file in which a bundle brings its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from hbi_infer.api import HBI
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.neutral_texts import background_file, encoded_texts, neutral_sentences, neutral_tokens
from hbi_infer.tokens.levels import Levels
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json, write_tiny_bundle

TEXTS = ["red", "a green video", *["blue"] * 40, "red and green and blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu", threads=1)


def with_background(folder: Path, content: bytes) -> HBI:
    write_bundle(folder, tiny_manifest(), tiny_graphs(), tokenizer_json(), {"background": content})
    return HBI.load(folder, device="cpu", threads=1)


def unit(levels: Levels, name: str) -> np.ndarray:  # type: ignore[type-arg]
    tokens = levels[name].tokens
    return tokens / np.maximum(np.linalg.norm(tokens, axis=2, keepdims=True), 1e-12)


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
    made = encoded_texts(model, TEXTS)
    bringing = with_background(tmp_path / "b", background_file(made))
    assert bringing.bundle.manifest.background is not None
    bringing.bundle.verify()
    read = neutral_tokens(bringing)
    assert list(read) == list(made)
    for name in made:
        np.testing.assert_array_equal(read[name].weights, made[name].weights)
        np.testing.assert_allclose(unit(read, name), unit(made, name), atol=1e-3)
    assert len(next(iter(neutral_tokens(model).values()))) == 256, "the others are of everyday scenes"


def test_altered_file_is_refused(model: HBI, tmp_path: Path) -> None:
    bringing = with_background(tmp_path / "b", background_file(encoded_texts(model, TEXTS)))
    path = tmp_path / "b" / "background.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match="altered or damaged"):
        neutral_tokens(bringing)
    path.unlink()
    with pytest.raises(BundleError, match=r"lacks background\.safetensors"):
        Bundle.load(tmp_path / "b")


def arrays(width: int = 3, texts: int = 2, *, weight: float = 0.5, level: str = "event") -> bytes:
    made = {}
    for name in ("entity", level):
        made[f"{name}_tokens"] = np.ones((texts, 2, width), np.float16)
        made[f"{name}_weights"] = np.full((texts, 2), weight, np.float32)
    return save(made)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x04no safetensors", "cannot be read"),
        (arrays(level="action"), "cannot be read"),
        (arrays(width=4), "has .* texts of the widths"),
        (arrays(texts=0), "has .* texts of the widths"),
        (arrays(texts=5000), "has .* texts of the widths"),
        (arrays(weight=0.0), "weights that are negative or all 0"),
        (arrays(weight=float("nan")), "not finite"),
        (save({"entity_tokens": np.ones((2, 3), np.float16), "entity_weights": np.ones((2, 2), np.float32)}), "cannot"),
    ],
)
def test_file_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=f"the background of .*{message}"):
        neutral_tokens(with_background(tmp_path / "b", content))
