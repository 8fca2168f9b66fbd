"""Clips of shapes that the tests of training share; no test changes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from hbi_training.data.frame_cache import Split
from tests.builders.tiny_training import (
    shapes_splits,
)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data set behind `splits`."""
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="session")
def splits(data_folder: Path) -> tuple[Split, Split]:
    """24 training and 8 validation clips, decoded."""
    return shapes_splits(data_folder)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first run for all that follow."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
