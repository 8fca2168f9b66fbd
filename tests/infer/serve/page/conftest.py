"""The service of a few videos, and Chromium to look at its page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.builders.browser import Watched, browser, watched_page
from tests.builders.page import OTHER, QUERY, Open, write_videos
from tests.builders.service import Running, running, wait_until_indexed
from tests.paths import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which indexes are not the user's."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second folder, of one video."""
    other = tmp_path_factory.mktemp("other")
    shutil.copy(ROOT / "samples" / OTHER, other)
    return other


@pytest.fixture(scope="module")
def service(folder: Path, other: Path, cache: dict[str, str]) -> Iterator[Running]:
    with running("--videos", folder, "--videos", other, "--workers", "2", env=cache) as service:
        wait_until_indexed(service.client)
        service.client.post("/v1/search", json={"query": QUERY}).raise_for_status()  # loads the text encoder
        yield service


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with browser() as running_browser:
        yield running_browser


@pytest.fixture
def opened(chromium: Browser, service: Running) -> Open:
    """Opens a page that stands still: nothing plays by itself where motion is not wanted."""

    def open_page(**context: object) -> AbstractContextManager[Watched]:
        context = {"reduced_motion": "reduce", "viewport": {"width": 1440, "height": 900}} | context
        return watched_page(chromium, service.address, **context)

    return open_page
