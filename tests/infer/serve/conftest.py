"""A service of a tiny model and a few coloured videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.builders.service import client_of, options, write_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def shared(library: Path) -> Iterator[TestClient]:
    """A service that no test changes."""
    with client_of(options(library)) as client:
        yield client


@pytest.fixture
def client(shared: TestClient) -> TestClient:
    shared.cookies.clear()
    return shared


@pytest.fixture
def videos(client: TestClient) -> dict[str, dict[str, Any]]:
    """The videos of the service, by path."""
    return {video["path"]: video for video in client.get("/v1/videos").json()["videos"]}
