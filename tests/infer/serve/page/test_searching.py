"""The page finds moments: by a sentence, a filter, a picture; and says what is indexed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from hbi_infer.video.reader import read_picture
from tests.builders import video_files
from tests.builders.browser import until, violations, watched_page
from tests.builders.page import FOUND, MARKUP, NUM_TINY, OTHER, QUERY, Open, search
from tests.builders.service import Running, running


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


def columns(page: Page) -> int:
    tops = page.locator(".card").evaluate_all("cards => cards.map(card => card.offsetTop)")
    return int(tops.count(tops[0]))


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


@pytest.mark.parametrize("is_sent", [False, True])
def test_what_is_typed_before_the_page_is_ready_stays(is_sent: bool, opened: Open) -> None:
    with opened() as watched:
        page = watched.page
        held: list[Route] = []
        page.route("**/v1/collections", lambda route: held.append(route))
        page.goto("/")
        page.get_by_role("searchbox").fill(QUERY)
        if is_sent:
            page.get_by_role("searchbox").press("Enter")
        page.wait_for_timeout(100)  # the request is there as soon as Playwright listens
        held[0].continue_()
        expect(page.locator(".card").first).to_contain_text(FOUND if is_sent else "long.mp4")
        expect(page.get_by_role("searchbox")).to_have_value(QUERY)
        if is_sent:
            expect(page.get_by_role("button", name="Show them")).to_be_visible()


def test_names_of_files_never_become_markup(opened: Open) -> None:
    with opened() as watched:
        watched.page.goto("/")
        expect(watched.page.get_by_text(MARKUP)).to_be_visible()
        assert watched.page.locator("img[src=x]").count() == 0


def test_another_collection_is_searched_alone(opened: Open, other: Path) -> None:
    with opened() as watched:
        page = watched.page
        page.goto("/")
        page.get_by_label("Collection").select_option(other.name)
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator(".card")).to_contain_text(OTHER)
        page.get_by_role("searchbox").fill("a green ring bounces and then pulses")
        page.get_by_role("searchbox").press("Enter")
        expect(page.locator(".card .match")).to_be_visible()
        address = page.url
        page.go_back()
        page.go_back()
        expect(page.locator(".card").nth(3)).to_be_visible()
    with opened() as watched:
        watched.page.goto(address)
        expect(watched.page.locator(".card")).to_contain_text(OTHER)


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
        expect(page.locator(".card", has_text="added.mp4")).to_be_visible()
        expect(page.get_by_role("button", name="Library")).to_have_text("Library")
        search(page)


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_axe_finds_nothing(width: int, scheme: str, opened: Open) -> None:
    with opened(viewport={"width": width, "height": 900}, color_scheme=scheme) as watched:
        page = watched.page
        search(page)
        page.get_by_role("button", name="Filters").click()
        assert violations(page) == []
        page.get_by_role("button", name="Library").click()
        expect(page.get_by_text("1 file could not be read")).to_be_visible()
        assert violations(page) == []


def test_a_token_lets_in_and_a_link_still_leads_where_it_should(
    chromium: Browser, service: Running, folder: Path, cache: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-many-letters")
    arguments = ("--videos", folder, "--no-update", "--token-file", token)
    with running(*arguments, env=cache) as guarded, watched_page(chromium, guarded.address) as watched:
        page = watched.page
        watched.expected.append("401")
        page.goto("/?q=two+rings&poor=show")
        assert violations(page) == []
        page.get_by_label("token").fill("a-token-of-other-letters")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        page.get_by_label("token").fill(token.read_text())
        page.keyboard.press("Enter")
        expect(page.get_by_role("searchbox")).to_have_value("two rings")
        expect(page.locator(".card .match").first).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        page.goto("/?q=two+rings")
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
