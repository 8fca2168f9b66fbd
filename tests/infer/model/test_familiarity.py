"""The file of a bundle that tells clips like those of the training from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.familiarity import familiarity_file, familiarity_of
from hbi_infer.tokens.familiarity import Familiarity
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json, write_tiny_bundle


def bundle_with(folder: Path, content: bytes) -> Bundle:
    write_bundle(folder, tiny_manifest(), tiny_graphs(), tokenizer_json(), {"familiarity": content})
    return Bundle.load(folder)


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    made = Familiarity(np.array([0.5, -0.25, 0.75], np.float32), 0.125)
    bundle = bundle_with(tmp_path / "b", familiarity_file(made))
    bundle.verify()
    read = familiarity_of(bundle)
    assert read is not None
    np.testing.assert_array_equal(read.direction, made.direction)
    assert read.limit == made.limit
    assert bundle.other_contents() == {"familiarity": familiarity_file(made)}


def test_bundle_that_does_not_know_calls_nothing_unfamiliar(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "b"))
    assert familiarity_of(bundle) is None
    with pytest.raises(BundleError, match="has no familiarity"):
        bundle.familiarity_bytes()


def test_altered_file_is_refused(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", familiarity_file(Familiarity(np.ones(3, np.float32), 0.5)))
    path = tmp_path / "b" / "familiarity.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(BundleError, match="altered or damaged"):
        familiarity_of(bundle)


def arrays(width: int = 3, limit: float = 0.0, value: float = 1.0) -> bytes:
    return save({"direction": np.full(width, value, np.float32), "limit": np.array([limit])})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no safetensors", "cannot be read"),
        (save({"direction": np.ones(3, np.float32)}), "cannot be read"),
        (arrays(width=4), "has the shapes"),
        (save({"direction": np.ones(3, np.float32), "limit": np.zeros(2)}), "has the shapes"),
        (arrays(limit=float("nan")), "not finite"),
        (arrays(value=float("inf")), "not finite"),
    ],
)
def test_file_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=f"the familiarity of .* {message}"):
        familiarity_of(bundle_with(tmp_path / "b", content))
