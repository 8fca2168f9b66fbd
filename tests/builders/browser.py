"""Chromium for tests of the page, and a watch over what a page does there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium(playwright: Playwright) -> str | None:
    """Where Chromium is: the system's, which plays H.264, or else Playwright's own."""
    own = Path(playwright.chromium.executable_path)
    return next(filter(None, map(shutil.which, NAMES)), str(own) if own.exists() else None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Runs Chromium; skips the test where there is none, and fails it where the environment promised one."""
    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            _do_without("there is no Chromium: apt-get install chromium, or playwright install chromium")
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            if not plays_h264(running):
                _do_without(f"{path} plays no H.264: apt-get install chromium")
            yield running
        finally:
            running.close()


def plays_h264(running: Browser) -> bool:
    """Whether a browser plays what most cameras write; builds without licensed codecs do not."""
    with running.new_page() as page:
        return bool(page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')"))


def _do_without(problem: str) -> NoReturn:
    if os.environ.get("HBI_REQUIRE_BROWSER") == "1":
        pytest.fail(problem)
    pytest.skip(problem)


@dataclass
class Watched:
    """A page, and what it did that it must not.

    Attributes:
        page: The page.
        expected: Parts of console errors that a test provokes.
        errors: Errors that scripts threw or the console showed.
        foreign: Requests to other hosts.
    """

    page: Page
    host: str
    expected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._see(request.url))

    def check(self) -> None:
        """Fails if the page threw an error or asked another host."""
        assert self.foreign == []
        assert [text for text in self.errors if not any(part in text for part in self.expected)] == []

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _see(self, address: str) -> None:
        if urlsplit(address).scheme not in {"data", "blob"} and urlsplit(address).netloc != self.host:
            self.foreign.append(address)


@contextmanager
def watched_page(running: Browser, address: str, **context: Any) -> Iterator[Watched]:
    """Opens an empty page in a context of its own, and checks at the end what it did."""
    with running.new_context(base_url=address, **context) as made:
        made.set_default_timeout(15_000)
        watched = Watched(made.new_page(), urlsplit(address).netloc)
        watched.watch(watched.page)
        made.on("page", watched.watch)
        yield watched
        watched.check()


def until(page: Page, condition: str, seconds: float = 15.0) -> None:
    """Waits until an expression is true in the page; Playwright's own wait needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not within {seconds:g} s: {condition}"
        page.wait_for_timeout(20)


def violations(page: Page) -> list[str]:
    """Returns what axe finds that keeps people out."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]
