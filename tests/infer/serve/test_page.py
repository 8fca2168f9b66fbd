"""The page in a real browser: it searches, plays the found moment, explains, answers, and works without a mouse."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from hbi_infer.video.reader import read_picture
from tests.builders import video_files
from tests.builders.browser import Watched, browser, until, watched_page
from tests.builders.service import Running, running, wait_until_indexed
from tests.paths import ROOT

QUERY = "two big red rings move left"
FOUND = "two-big-red-rings-move-left.avi"
LATER_QUERY = "a red cross moves up while a yellow star shakes"
LATER_START = 4.0
"""When the moment of `LATER_QUERY` begins in long.mp4."""
PARTS = (
    "blue-ring-pulses-while-orange-triangle-bounces.mp4",
    "red-cross-moves-up-while-yellow-star-shakes.webm",
    "blue-ring-pulses-then-small-white-star-moves-left.mp4",
)
NUM_TINY = 26
SIDE = 48

Open: TypeAlias = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos: long.mp4 with three moments, one that no browser plays, a damaged one, and many tiny ones."""
    folder = tmp_path_factory.mktemp("videos")
    for name in (FOUND, "small-red-circle-moves-left-then-blue-square-blinks.mp4", "damaged.mp4"):
        shutil.copy(ROOT / "samples" / name, folder / name)
    join([ROOT / "samples" / part for part in PARTS], folder / "long.mp4")
    (folder / "tiny").mkdir()
    for number in range(NUM_TINY):
        video_files.write_video(folder / "tiny" / f"{number:02}.mp4", num_frames=number + 3, width=64, height=64)
    return folder


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


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    cache = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    with running("--videos", folder, "--workers", "2", env=cache) as service:
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


def shown_frame(page: Page) -> NDArray[np.float64]:
    """Returns what the player shows (SIDE, SIDE, 3), drawn to a canvas of that size."""
    values = page.evaluate(
        """side => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = side;
            const context = canvas.getContext("2d");
            context.imageSmoothingQuality = "high";
            context.drawImage(document.querySelector("video"), 0, 0, side, side);
            return Array.from(context.getImageData(0, 0, side, side).data);
        }""",
        SIDE,
    )
    return np.array(values, float).reshape(SIDE, SIDE, 4)[..., :3]


def frame_at(video: Path, seconds: float) -> NDArray[np.float64]:
    with Image.fromarray(read_picture(video, seconds, longest_side=192)) as picture:
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), float)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).mean())


def test_a_search_shows_moments_with_their_pictures(opened: Open) -> None:
    with opened() as watched:
        search(watched.page)
        first = watched.page.locator(".card").first
        expect(first).to_contain_text(FOUND)
        expect(first).to_contain_text(re.compile(r"0:00 \S 0:04"))
        expect(first).to_contain_text(re.compile(r"match .* %"))
        expect(first).to_contain_text(re.compile(r"score \d"))
        until(watched.page, "document.querySelector('.card img').naturalWidth > 0")
        expect(watched.page.get_by_role("status").first).to_contain_text("moment")
        expect(watched.page.locator("#notes")).to_contain_text("no better than a sentence about something else")


def test_what_is_left_out_can_be_shown(opened: Open) -> None:
    with opened() as watched:
        search(watched.page)
        before = watched.page.locator(".card").count()
        watched.page.get_by_role("button", name="Show them").click()
        expect(watched.page.locator(".card").nth(before + 5)).to_be_attached()
        assert "poor=show" in watched.page.url


def test_a_click_opens_the_player_at_the_moment(opened: Open, folder: Path) -> None:
    with opened() as watched:
        open_moment(watched.page)
        assert abs(current_time(watched.page) - LATER_START) < 0.1
        frame = shown_frame(watched.page)
        assert difference(frame, frame_at(folder / "long.mp4", LATER_START)) < 5
        assert difference(frame, frame_at(folder / "long.mp4", 0.0)) > 10


def test_the_moment_plays_from_its_start_and_shows_frames(opened: Open) -> None:
    with opened(reduced_motion="no-preference") as watched:
        search(watched.page, LATER_QUERY)
        watched.page.evaluate(
            """() => {
                window.shown = [];
                const watch = (now, {mediaTime}) => {
                    window.shown.push(mediaTime);
                    document.querySelector("video")?.requestVideoFrameCallback(watch);
                };
                new MutationObserver((_, observer) => {
                    const video = document.querySelector("video");
                    if (!video) return;
                    observer.disconnect();
                    video.addEventListener("seeked", () => video.requestVideoFrameCallback(watch), {once: true});
                }).observe(document.body, {childList: true, subtree: true});
            }"""
        )
        watched.page.locator(".card").first.click()
        until(watched.page, "window.shown.length > 8")
        shown = watched.page.evaluate("window.shown")
        assert abs(shown[0] - LATER_START) < 0.1
        assert shown == sorted(shown)
        assert watched.page.evaluate("!document.querySelector('video').paused")


def test_repeating_stays_within_the_moment(opened: Open) -> None:
    with opened() as watched:
        open_moment(watched.page)
        watched.page.get_by_role("button", name="Repeat").click()
        watched.page.evaluate("document.querySelector('video').currentTime = 7.8")
        until(watched.page, "document.querySelector('video').currentTime < 7")
        assert current_time(watched.page) >= LATER_START - 0.1


def test_a_video_that_a_browser_cannot_play_is_converted(opened: Open, folder: Path) -> None:
    with opened() as watched:
        open_moment(watched.page, QUERY)
        assert "format=mp4" in watched.page.evaluate("document.querySelector('video').currentSrc")
        watched.page.evaluate("document.querySelector('video').currentTime = 2.0")
        until(watched.page, "!document.querySelector('video').seeking")
        assert difference(shown_frame(watched.page), frame_at(folder / FOUND, 2.0)) < 6


def test_the_map_holds_the_words_and_frames_of_the_explanation(opened: Open, service: Running) -> None:
    with opened() as watched:
        with watched.page.expect_response("**/v1/explain") as answered:
            open_moment(watched.page)
        explanation = answered.value.json()
        rows = watched.page.locator(".heat tbody tr")
        expect(rows).to_have_count(len(explanation["words"]))
        assert rows.locator("th").all_inner_texts() == explanation["words"]
        expect(rows.first.locator("td")).to_have_count(len(explanation["frame_seconds"]))
        until(watched.page, "[...document.querySelectorAll('.heat img')].every(image => image.naturalWidth)")
        best = np.unravel_index(np.argmax(explanation["levels"][0]["interaction"]), (len(explanation["words"]), 12))
        word, frame = explanation["words"][best[0]], explanation["frame_seconds"][best[1]]
        expect(watched.page.locator(".readout")).to_contain_text(f"Strongest: “{word}” at 0:0{int(frame)}")


def test_hovering_marks_the_frame_and_a_click_shows_it(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        open_moment(page)
        cell = page.locator('.heat td[data-row="2"][data-column="5"]')
        cell.hover()
        expect(page.locator("th.marked")).to_have_attribute("data-column", "5")
        expect(page.locator(".timeline .mark")).to_be_visible()
        expect(page.locator(".readout")).to_contain_text("at 0:0")
        cell.click()
        until(page, "!document.querySelector('video').seeking")
        assert current_time(page) == pytest.approx(LATER_START + 5 / 3, abs=0.06)


def test_levels_can_be_chosen(opened: Open) -> None:
    with opened() as watched:
        open_moment(watched.page)
        before = watched.page.locator(".heat").inner_text()
        watched.page.get_by_role("radio", name="event").check(force=True)
        expect(watched.page.get_by_role("table", name=re.compile("event level"))).to_be_visible()
        assert watched.page.locator(".heat").inner_text() != before


def test_a_question_is_answered_with_probabilities(opened: Open) -> None:
    with opened() as watched:
        open_moment(watched.page, QUERY)
        field = watched.page.get_by_role("textbox", name="A question about this video")
        field.fill("how many rings are there?")
        field.press("Enter")
        answers = watched.page.locator(".bars li")
        expect(answers.first).to_contain_text("two")
        expect(answers.first).to_contain_text("%")
        expect(answers).to_have_count(5)


def test_what_is_no_question_is_told_with_the_services_words(opened: Open) -> None:
    with opened() as watched:
        watched.expected.append("422")
        open_moment(watched.page, QUERY)
        field = watched.page.get_by_role("textbox", name="A question about this video")
        field.fill("rings")
        field.press("Enter")
        expect(watched.page.locator(".answer").get_by_role("alert")).to_contain_text("is not a question")


def test_captions_are_listed_and_a_click_plays_their_clip(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        open_moment(page)
        captions = page.locator(".clips li")
        expect(captions).to_have_count(3)
        expect(captions.nth(2).locator(".said")).to_be_visible()
        captions.nth(2).get_by_role("button").click()
        until(page, "document.querySelector('video').currentTime >= 8")
        assert "t=8" in page.url
        expect(captions.nth(2).get_by_role("button")).to_have_attribute("aria-current", "true")


def test_the_moment_can_be_downloaded(opened: Open, tmp_path: Path) -> None:
    with opened() as watched:
        open_moment(watched.page)
        with watched.page.expect_download() as started:
            watched.page.get_by_role("link", name="Download").click()
        started.value.save_as(tmp_path / "moment.mp4")
        with av.open(str(tmp_path / "moment.mp4")) as moment:
            assert moment.streams.video[0].codec_context.name == "h264"
            assert float(moment.duration or 0) / av.time_base < 8


def test_more_like_this_searches_with_the_clip(opened: Open) -> None:
    with opened() as watched:
        open_moment(watched.page, QUERY)
        watched.page.get_by_role("link", name="More like this").click()
        expect(watched.page.get_by_role("heading", name="Moments like this one")).to_be_visible()
        expect(watched.page.locator(".card").nth(1)).to_be_visible()
        watched.page.get_by_role("button", name="Search without the example").click()
        expect(watched.page.get_by_role("heading", name="Videos")).to_be_visible()


def drop(page: Page, content: bytes, name: str, kind: str) -> None:
    given = page.evaluate_handle(
        """([bytes, name, type]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type}));
            return data;
        }""",
        [list(content), name, kind],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": given})
    expect(page.get_by_text("Drop a picture to find moments like it")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": given})
    expect(page.get_by_text("Drop a picture to find moments like it")).to_be_hidden()


def test_a_dropped_picture_finds_moments_like_it(opened: Open, folder: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(read_picture(folder / FOUND, 1.0, longest_side=192)).save(picture, "png")
    with opened() as watched:
        watched.page.goto("/")
        expect(watched.page.locator(".card").first).to_be_visible()
        drop(watched.page, picture.getvalue(), "rings.png", "image/png")
        expect(watched.page.get_by_role("heading", name="Moments like the picture")).to_be_visible()
        expect(watched.page.locator(".card").first).to_contain_text(FOUND)
        expect(watched.page.locator("#example-text")).to_have_text("rings.png")


def test_a_dropped_file_that_is_no_picture_is_an_error_that_says_so(opened: Open) -> None:
    with opened() as watched:
        watched.expected.extend(["415", "422"])
        watched.page.goto("/")
        expect(watched.page.locator(".card").first).to_be_visible()
        drop(watched.page, b"no picture at all", "notes.txt", "text/plain")
        expect(watched.page.get_by_role("alert")).to_contain_text("picture")
        search(watched.page)


def test_everything_works_by_keyboard(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator(".card").first).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type(LATER_QUERY)
        page.keyboard.press("Enter")
        expect(page.locator(".card .match").first).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(page.locator(".card").first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#detail-title")).to_be_focused()
        expect(page.locator("#detail-title")).to_have_text("long.mp4")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.name") == "question":
                break
        page.keyboard.type("what colour is the star?")
        page.keyboard.press("Enter")
        expect(page.locator(".bars li").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator(".card").first).to_be_focused()


def test_arrows_go_from_moment_to_moment_as_they_lie(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        page.goto("/")
        cards = page.locator(".card")
        expect(cards.nth(11)).to_be_visible()
        page.get_by_role("searchbox").press("ArrowDown")
        for key, there in (
            ("ArrowRight", 1),
            ("ArrowDown", 1 + columns(page)),
            ("ArrowLeft", columns(page)),
            ("ArrowUp", 0),
        ):
            page.keyboard.press(key)
            expect(cards.nth(there)).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(page.get_by_role("searchbox")).to_be_focused()


def columns(page: Page) -> int:
    tops = page.locator(".card").evaluate_all("cards => cards.map(card => card.offsetTop)")
    return int(tops.count(tops[0]))


def test_j_and_k_step_through_the_results_and_back_leaves_the_moment(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        open_moment(page)
        page.get_by_role("link", name="More like this").click()
        expect(page.locator(".card").nth(2)).to_be_visible()
        page.locator(".card").first.click()
        first = page.url
        page.locator("#detail-title").press("j")
        page.wait_for_url(lambda address: address != first)
        page.keyboard.press("k")
        page.wait_for_url(first)
        page.go_back()
        expect(page.get_by_role("heading", name="Moments like this one")).to_be_visible()


def test_back_and_forward_bring_back_searches_and_moments(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        open_moment(page)
        search_field = page.get_by_role("searchbox")
        search_field.fill(QUERY)
        search_field.press("Enter")
        expect(page.locator(".card").first).to_contain_text(FOUND)
        expect(page.locator("#detail")).to_be_hidden()
        page.go_back()
        expect(search_field).to_have_value(LATER_QUERY)
        expect(page.locator("#detail-title")).to_have_text("long.mp4")
        page.go_back()
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator(".card").first).to_contain_text("long.mp4")
        page.go_back()
        expect(page.get_by_role("heading", name="Videos")).to_be_visible()
        page.go_forward()
        page.go_forward()
        expect(page.locator("#detail-title")).to_have_text("long.mp4")


def test_the_address_of_a_moment_opens_it_elsewhere(opened: Open) -> None:
    with opened() as watched:
        open_moment(watched.page)
        address = watched.page.url
    with opened() as watched:
        watched.page.goto(address)
        expect(watched.page.locator("#detail-title")).to_have_text("long.mp4")
        until(watched.page, "document.querySelector('video')?.readyState >= 2")
        assert abs(current_time(watched.page) - LATER_START) < 0.1
        expect(watched.page.locator(".heat")).to_be_visible()


def test_an_address_of_a_video_that_is_gone_says_so(opened: Open) -> None:
    with opened() as watched:
        watched.expected.append("404")
        watched.page.goto("/?video=00000000-00000000000000000000")
        expect(watched.page.locator("#detail").get_by_role("alert")).to_be_visible()
        watched.page.keyboard.press("Escape")
        expect(watched.page.locator(".card").first).to_be_visible()


def test_scrolling_shows_more(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        page.set_viewport_size({"width": 1440, "height": 500})
        page.goto("/")
        expect(page.locator(".card")).to_have_count(24)
        page.mouse.move(700, 300)
        page.mouse.wheel(0, 20_000)
        expect(page.locator(".card")).to_have_count(NUM_TINY + 3)
        expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_filters_narrow_a_search(opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        search(page)
        page.get_by_role("button", name="Filters").click()
        page.get_by_label("Poor matches").select_option("show")
        page.get_by_label("Folder").fill("tiny")
        page.get_by_label("Folder").press("Enter")
        expect(page.locator(".card").first).to_contain_text("tiny")
        assert all("tiny" in text for text in page.locator(".card").all_inner_texts())
        page.get_by_label("Longer than, s").fill("1000")
        page.get_by_label("Longer than, s").press("Enter")
        expect(page.get_by_text("Nothing matches.")).to_be_visible()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".card").first).to_contain_text(FOUND)


def test_a_phone_shows_everything_in_its_width(opened: Open) -> None:
    with opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as watched:
        page = watched.page
        search(page, LATER_QUERY)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.locator(".card").first.tap()
        expect(page.locator(".heat tbody td").first).to_be_visible()
        assert page.evaluate("document.querySelector('#detail').scrollWidth") == 390
        assert page.evaluate("document.querySelector('#results').inert")
        page.get_by_role("button", name="Close").tap()
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator(".card").first).to_be_visible()


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_axe_finds_nothing(width: int, scheme: str, opened: Open) -> None:
    with opened(viewport={"width": width, "height": 900}, color_scheme=scheme) as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator(".card").first).to_be_visible()
        page.get_by_role("button", name="Filters").click()
        assert violations(page) == []
        page.get_by_role("button", name="Library").click()
        expect(page.get_by_text("1 file could not be read")).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        open_moment(page, QUERY)
        page.get_by_role("textbox", name="A question about this video").fill("how many rings are there?")
        page.keyboard.press("Enter")
        expect(page.locator(".bars li").first).to_be_visible()
        expect(page.locator(".heat")).to_be_visible()
        assert violations(page) == []


def test_the_library_lists_failures_and_shows_indexing_live(opened: Open, folder: Path) -> None:
    with opened() as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator(".card").first).to_be_visible()
        page.get_by_role("button", name="Library").click()
        expect(page.locator(".failures")).to_contain_text("damaged.mp4")
        expect(page.locator(".failures .small")).to_have_text(re.compile(r"\w{4}"))
        video_files.write_video(folder / "added.mp4", num_frames=200, width=320, height=240)
        page.get_by_role("button", name="Look for new videos").click()
        until(page, "!document.querySelector('#progress').hidden")
        page.keyboard.press("Escape")
        expect(page.get_by_text("added.mp4")).to_be_visible()
        expect(page.get_by_role("button", name="Library")).to_have_text("Library")
        search(page)
