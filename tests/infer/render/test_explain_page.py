"""An explanation as a page that needs nothing else and runs nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hbi_infer.api import HBI
from hbi_infer.render.explain_page import page
from hbi_infer.tasks.explain import Explanation, NoFramesWarning
from hbi_infer.tasks.texts import QueryTruncatedWarning
from tests.builders.merged_explanation import merged
from tests.builders.tiny_bundle import write_video

SCRIPT = "<script>alert(1)"


class Elements(HTMLParser):
    """Collects a page's elements, and sees whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_a_page_needs_nothing_else_and_runs_nothing(made: Explanation, bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / f"{SCRIPT}.mp4", "red")
    model = HBI.load(bundle, device="cpu", threads=1)
    with pytest.warns(QueryTruncatedWarning):
        text = page(model.explain(video, f'red {SCRIPT} "'))
    assert "<script" not in text
    assert "<h1>“red &lt;script&gt;alert(1) &quot;”</h1>" in text
    assert "<p>&lt;script&gt;alert(1).mp4 · clip 1 of 1" in text
    assert "<tr><th>&lt;</th>" in text, "a word of its own"
    elements = Elements(text).elements
    assert {tag for tag, _ in elements}.isdisjoint({"script", "link", "iframe", "object", "a"})
    images = [attributes["src"] or "" for tag, attributes in elements if tag == "img"]
    assert len(images) == 3 * 4, "each frame for the words and at each level"
    assert all(image.startswith("data:image/jpeg;base64,") for image in images)
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text


def test_a_page_without_frames(made: Explanation, tmp_path: Path) -> None:
    gone = replace(made, video=tmp_path / "gone.mp4")
    with pytest.warns(NoFramesWarning, match=r"gone.mp4"):
        text = page(gone)
    assert "<img" not in text
    assert "1.5 s" in text


def test_columns_of_a_page_are_in_the_order_of_time_and_named_by_it(made: Explanation) -> None:
    text = page(merged(made))
    action = text[text.index("<h2>action") :]
    assert re.findall(r'<th class="group time">(.*?)</th>', action) == ["0.0, 1.0 s", "0.5, 1.5 s", ""]
    assert re.findall(r'title="cosine (.*?)"', action) == ["0.300", "0.100", "0.200"]
    assert re.findall(r'<th class="group weight">(.*?)</th>', action) == ["0.38", "0.50", "0.12"]
    words = text[: text.index("<details>")]
    assert re.findall(r'<th class="group time">(.*?)</th>', words) == ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]
    entity = text[text.index("<details>") : text.index("<h2>action")]
    assert re.findall(r'<th class="group time">(.*?)</th>', entity) == ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]
