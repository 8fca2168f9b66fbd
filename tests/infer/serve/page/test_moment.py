"""A moment of the page: it plays, is explained, answers questions, and is reached without a mouse and on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from hbi_infer.video.reader import read_picture
from tests.builders.browser import until, violations
from tests.builders.page import FOUND, LATER_QUERY, LATER_START, QUERY, Open, current_time, open_moment, search
from tests.builders.service import Running

SIDE = 48


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
        until(watched.page, "window.shown.length > 4")
        shown = watched.page.evaluate("window.shown")
        began = watched.page.evaluate("document.querySelector('video').played.start(0)")
        assert abs(began - LATER_START) < 0.1
        assert shown[0] > LATER_START - 0.1
        assert shown == sorted(shown)


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
        seconds = explanation["frame_seconds"]
        word_map, entity = explanation["word_map"], explanation["levels"][0]
        expect(watched.page.locator(".sentence")).to_have_text(word_map["sentence"])
        words_and_frames_are(watched.page, word_map["words"], word_map["values"], seconds)
        told = [phrase for phrase in word_map["phrases"] if len(phrase["frames"]) < len(seconds)]
        expect(watched.page.locator(".heat td.belongs")).to_have_count(
            len({(word, frame) for phrase in told for word in phrase["words"] for frame in phrase["frames"]})
        )
        watched.page.get_by_role("radio", name="entity").check(force=True)
        words_and_frames_are(watched.page, explanation["words"], entity["interaction"], seconds)


def words_and_frames_are(page: Page, words: list[str], values: list[list[float]], seconds: list[float]) -> None:
    """The map has these rows and columns, and its line names the pair of the largest value."""
    rows = page.locator(".heat tbody tr")
    expect(rows).to_have_count(len(words))
    assert rows.locator("th").all_inner_texts() == words
    expect(rows.first.locator("td")).to_have_count(len(seconds))
    until(page, "[...document.querySelectorAll('.heat img')].every(image => image.naturalWidth)")
    row, column = np.unravel_index(np.argmax(values), (len(words), len(seconds)))
    expect(page.locator(".readout")).to_contain_text(f"Strongest: “{words[row]}” at 0:0{int(seconds[column])}")


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
        expect(answers.first).to_contain_text("2")
        expect(answers.first).to_contain_text("%")
        expect(answers).to_have_count(5)


def test_what_is_no_question_is_told_with_the_services_words(opened: Open) -> None:
    with opened() as watched:
        watched.expected.append("400")
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


def test_a_phone_shows_everything_in_its_width(opened: Open) -> None:
    with opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as watched:
        page = watched.page
        search(page, LATER_QUERY)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.locator(".card").first.tap()
        expect(page.locator(".heat tbody td").first).to_be_visible()
        assert page.evaluate("document.querySelector('#detail').scrollWidth") == 390
        assert page.evaluate("document.querySelector('#results').inert")
        captions = page.get_by_role("heading", name="Captions")
        page.evaluate("document.querySelector('#detail').scrollTop = 10_000")
        assert 0 < captions.bounding_box()["y"] < 844  # type: ignore[index]
        page.get_by_role("button", name="Close").tap()
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator(".card").first).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_axe_finds_nothing_in_a_moment(width: int, scheme: str, opened: Open) -> None:
    with opened(viewport={"width": width, "height": 900}, color_scheme=scheme) as watched:
        page = watched.page
        open_moment(page, QUERY)
        page.get_by_role("textbox", name="A question about this video").fill("how many rings are there?")
        page.keyboard.press("Enter")
        expect(page.locator(".bars li").first).to_be_visible()
        expect(page.locator(".heat")).to_be_visible()
        assert violations(page) == []
