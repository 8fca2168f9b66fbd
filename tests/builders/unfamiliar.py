"""A tiny bundle that was trained on everything but red."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hbi_infer.model.bundle import write_bundle
from hbi_infer.model.familiarity import familiarity_file
from hbi_infer.tokens.familiarity import Familiarity
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json


def write_bundle_without_red(folder: Path, *tasks: str) -> Path:
    """Writes the tiny bundle to `folder`, with a file that calls red clips unfamiliar."""
    content = familiarity_file(Familiarity(np.array([1, 0, 0], np.float32), 0.8))
    write_bundle(folder, tiny_manifest(*tasks), tiny_graphs(*tasks), tokenizer_json(), {"familiarity": content})
    return folder
