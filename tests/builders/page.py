"""Videos for the tests of the page, and what they do there again and again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import av
from playwright.sync_api import Page, expect

from tests.builders import video_files
from tests.builders.browser import Watched, until
from tests.paths import ROOT

QUERY = "two big red rings move left"
FOUND = "two-big-red-rings-move-left.avi"
OTHER = "green-ring-bounces-then-pulses.mpg"
"""The only video of the second folder."""
LATER_QUERY = "a red cross moves up while a yellow star shakes"
LATER_START = 4.0
"""When the moment of `LATER_QUERY` begins in long.mp4."""
PARTS = (
    "blue-ring-pulses-while-orange-triangle-bounces.mp4",
    "red-cross-moves-up-while-yellow-star-shakes.webm",
    "blue-ring-pulses-then-small-white-star-moves-left.mp4",
)
NUM_TINY = 26
MARKUP = "<img src=x onerror=alert(1)>.mp4"
"""Name of a video that would be a danger if it became markup."""

Open: TypeAlias = Callable[..., AbstractContextManager[Watched]]
"""Opens a page in a context with the given options."""


def write_videos(folder: Path) -> None:
    """Writes long.mp4 with three moments, a video that no browser plays, a damaged one, and many tiny ones."""
    for name in (FOUND, "small-red-circle-moves-left-then-blue-square-blinks.mp4", "damaged.mp4"):
        shutil.copy(ROOT / "samples" / name, folder / name)
    join([ROOT / "samples" / part for part in PARTS], folder / "long.mp4")
    (folder / "tiny").mkdir()
    for number in range(NUM_TINY):
        name = f"{number:02}.mp4" if number else MARKUP
        video_files.write_video(folder / "tiny" / name, num_frames=number + 3, width=64, height=64)


def join(parts: list[Path], target: Path) -> None:
    """Joins videos of 12 frames a second to one in H.264, with few keyframes."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"g": "60"})
        stream.width, stream.height, stream.pix_fmt = 192, 192, "yuv420p"
        for part in parts:
            with av.open(str(part)) as source:
                for frame in source.decode(video=0):
                    image = frame.reformat(192, 192, "rgb24").to_ndarray()
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


def search(page: Page, query: str = QUERY) -> None:
    page.goto("/")
    page.get_by_role("searchbox").fill(query)
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=2).first).to_have_text(f"“{query}”")
    expect(page.locator(".card .match").first).to_be_visible()


def open_moment(page: Page, query: str = LATER_QUERY) -> None:
    search(page, query)
    page.locator(".card").first.click()
    until(page, "document.querySelector('video')?.readyState >= 2 && !document.querySelector('video').seeking")


def current_time(page: Page) -> float:
    return float(page.evaluate("document.querySelector('video').currentTime"))
