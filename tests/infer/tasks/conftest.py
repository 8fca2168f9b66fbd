"""An index of coloured videos, of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hbi_infer.api import HBI, Index
from tests.builders.searched_index import VIDEOS
from tests.builders.tiny_bundle import (
    write_tiny_bundle,
    write_video,
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    root = tmp_path_factory.mktemp("retrieve")
    for name, colours in VIDEOS.items():
        write_video(root / "videos" / name, *colours)
    model = HBI.load(write_tiny_bundle(root / "bundle"), device="cpu", threads=1)
    with Index.open(root / "videos", model, location=root / "index.sqlite") as index:
        index.update(workers=1)
        yield index
