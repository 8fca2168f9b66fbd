"""`hbi-infer explain`, as real processes over really encoded videos, and the files that it writes."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbi_infer.api import HBI
from hbi_infer.errors import InputError
from hbi_infer.render.explain_file import write_explanation
from hbi_infer.render.explain_page import page
from hbi_infer.render.explain_picture import (
    CELL_WIDTHS,
    GAP,
    MAP_LEFT,
    MARGIN,
    NARROWEST,
    cell_width,
    draw_picture,
    picture,
)
from hbi_infer.render.heat_scale import HeatScale
from hbi_infer.tasks.explain import Explanation, NoFramesWarning
from hbi_infer.tasks.texts import QueryTruncatedWarning
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.infer.cli.test_retrieve import ROOT, on_terminal, run

SCRIPT = "<script>alert(1)"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "one red.mp4", "green", "green", "green", "red", seconds_each=0.5)
    write_video(folder / "long.mp4", "green", "blue")
    return folder


@pytest.fixture(scope="module")
def options(folder: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name the model and the index of the folder."""
    path = tmp_path_factory.mktemp("index") / "i.sqlite"
    assert run("index", folder, "--bundle", bundle, "--index", path).returncode == 0
    return ["--bundle", str(bundle), "--videos", str(folder), "--index", str(path)]


@pytest.fixture
def made(bundle: Path, folder: Path) -> Iterator[Explanation]:
    return HBI.load(bundle, device="cpu", threads=1).explain(folder / "one red.mp4", "a red video")


def test_help_has_an_example_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from hbi_infer.cli import app; app(['explain', '--help'], standalone_mode=False);"
        "print([name for name in ('numpy', 'av', 'onnxruntime', 'tokenizers', 'rich', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\n  hbi-infer explain --video " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_lines_for_a_pipe(options: list[str], folder: Path) -> None:
    done = run("explain", "--video", folder / "one red.mp4", "-q", "a red", *options)
    assert (done.returncode, done.stderr) == (0, f"note: {NOTICE}\n")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 4 * 4 + 1
    assert [line[:3] for line in lines[:2]] == [["entity", "[start]", "0.000"], ["entity", "[start]", "0.500"]]
    assert lines[-1][:3] == ["event", "[start] a red [end]", "0.000 0.500 1.000 1.500"]
    best = max(lines[:-1], key=lambda line: float(line[3]))
    assert best[1:3] == ["red", "1.500"]


def test_json_is_the_same_with_and_without_the_index(
    options: list[str], folder: Path, bundle: Path, tmp_path: Path
) -> None:
    arguments = ("explain", "--video", folder / "long.mp4", "-q", "blue", "--json", "--bundle", bundle)
    stored = json.loads(run(*arguments, *options[2:]).stdout)
    decoded = json.loads(run(*arguments, env={"XDG_CACHE_HOME": str(tmp_path)}).stdout)
    assert (stored.pop("source"), decoded.pop("source")) == ("index", "video")
    assert stored["model"]["name"] == "tiny"
    assert (stored["clip"], stored["num_clips"], stored["words"]) == (2, 2, ["[start]", "blue", "[end]"])
    assert stored["fidelity"]["by_interaction"]["drop"] > stored["fidelity"]["at_random"]["drop"]
    assert stored.keys() == decoded.keys()
    for one, other in zip(stored["levels"], decoded["levels"], strict=True):
        np.testing.assert_allclose(one["interaction"], other["interaction"], atol=2e-3)
    first = json.loads(run(*arguments, *options[2:], "--clip", "1").stdout)
    assert first["clip"] == json.loads(run(*arguments, *options[2:], "--at", "0.5").stdout)["clip"] == 1


def test_an_indexed_video_that_is_gone(bundle: Path, tmp_path: Path) -> None:
    """Indexed in the user's cache folder and found there; the picture has times in place of frames."""
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run("index", video.parent, "--bundle", bundle, env=env).returncode == 0
    arguments = ("explain", "--video", video, "-q", "red", "--bundle", bundle)
    before = run(*arguments, env=env)
    video.unlink()
    after = run(*arguments, "--out", tmp_path / "why.png", env=env)
    assert (after.returncode, after.stdout) == (0, before.stdout)
    assert re.search(
        r"^warning: '.*red.mp4' cannot be opened: .*: its frames are shown as times only$", after.stderr, re.M
    )
    with Image.open(tmp_path / "why.png") as image:
        assert image.format == "PNG"


def test_maps_on_a_terminal(options: list[str], folder: Path) -> None:
    status, shown = on_terminal("explain", "--video", folder / "one red.mp4", "-q", "a red video", *options)
    assert status == 0
    assert re.search(r"^entity: similarity 0\.\d{3}, rate 1; interaction in units of 0.01 *$", shown, re.M)
    assert re.search(r"^seconds +0\.0 +0\.5 +1\.0 +1\.5 *$", shown, re.M)
    assert re.search(r"^ +red +-?\d+ +-?\d+ +-?\d+ +[1-9]\d *$", shown, re.M)
    assert re.search(r"^ +seconds +0\.0-1\.5 *$", shown, re.M)
    assert re.search(r"^ *level +words +seconds +interaction +cosine *$", shown, re.M)
    assert re.search(r"^ *all levels +3 of 21 +\d+% +\d+% +\d+% +\d+\.\d% ± \d+\.\d% *$", shown, re.M)
    assert re.search(r"^score 0\.\d{3}, clip 1 of 1 \(0:00\.0-0:02\.0\), tokens from the index$", shown, re.M)


def test_a_query_that_is_too_long(options: list[str], folder: Path) -> None:
    done = run("explain", "--video", folder / "long.mp4", "-q", "a red video then a blue video then green", *options)
    assert done.returncode == 0
    assert "warning: the query 'a red video then" in done.stderr
    assert "cut at word 7, 'video'" in done.stderr


@pytest.mark.parametrize("suffix", ["png", "html", "json", "PNG"])
def test_files(options: list[str], folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"why.{suffix}"
    arguments = ("explain", "--video", folder / "one red.mp4", "-q", "a red video", *options)
    done = run(*arguments, "--out", out)
    assert (done.returncode, done.stdout) == (0, run(*arguments).stdout)
    content = out.read_bytes()
    if suffix == "json":
        assert json.loads(content) == json.loads(run(*arguments, "--json").stdout)
    elif suffix == "html":
        assert content.startswith(b"<!DOCTYPE html>")
    else:
        assert Image.open(io.BytesIO(content)).format == "PNG"
    refused = run(*arguments, "--out", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: {out} exists already: give --force to overwrite it, or another --out\n"
    out.write_bytes(b"")
    assert run(*arguments, "--out", out, "--force").returncode == 0
    assert out.read_bytes() == content, "the same every time"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_the_old_file_and_no_part_of_a_new_one(
    made: Explanation, tmp_path: Path, overwrite: bool
) -> None:
    out = tmp_path / "why.json"
    if overwrite:
        out.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*why\.json \(File too large\)"):
            write_explanation(made, {"long": "x" * 10_000}, out, overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"why.json": "old"} if overwrite else {})
    write_explanation(made, {}, out, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["why.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "none.mp4"], "there is no file none.mp4, and no index that holds it: give a video"),
        (["--query", " "], "a query is empty"),
        (["--clip", "3"], "long.mp4 has no clip 3: give a number from 1 to 2"),
        (["--at", "60"], "long.mp4 has no clip at 60 s: give a time from 0 s to before 4 s"),
        (["--index", "none.sqlite"], "has no index at none.sqlite: make it with hbi-infer index"),
        (["--videos", "/nowhere"], "cannot read the folder /nowhere"),
        (["--out", "/nowhere/why.png"], "there is no folder /nowhere to write why.png to"),
        (["--out", "FOLDER.png", "--force"], "FOLDER.png (Is a directory): free space, or give another --out"),
    ],
)
def test_an_error_is_one_line(
    options: list[str], folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "FOLDER.png").mkdir()
    arguments = [argument.replace("FOLDER", str(tmp_path / "FOLDER")) for argument in arguments]
    done = run("explain", "--video", folder / "long.mp4", "--query", "red", *options, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "a.mp4"], "Missing option '--query'"),
        (["--query", "red"], "Missing option '--video'"),
        (["--video", "a.mp4", "--query", "red", "--clip", "1", "--at", "2"], "give --clip or --at, not both"),
        (["--video", "a.mp4", "--query", "red", "--clip", "0"], "Invalid value for '--clip'"),
        (["--video", "a.mp4", "--query", "red", "--index", "i.sqlite"], "--index needs --videos DIR"),
        (["--video", "a.mp4", "--query", "red", "--out", "why.gif"], "give a name that ends in .png, .html, .json"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    done = run("explain", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())


def test_a_picture_has_a_column_for_each_frame(made: Explanation) -> None:
    image = Image.open(io.BytesIO(picture(made)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.width == 2 * MARGIN + max(NARROWEST, MAP_LEFT + 4 * cell_width(made))
    # The frames are there: the first is green, the last, over the hottest cell, red.
    pixels = np.asarray(image).astype(int)
    width = cell_width(made)
    top = MARGIN + np.flatnonzero(np.ptp(pixels[MARGIN:, MARGIN + MAP_LEFT + width // 2], axis=1) > 150)[0]
    first, last = (pixels[top + 10, MARGIN + MAP_LEFT + round((place + 0.5) * width)] for place in (0, 3))
    assert first.argmax() == 1
    assert last.argmax() == 0
    without = draw_picture(made, None)
    assert without.width == image.width
    assert image.height - without.height == 2 * (width - GAP), "a row of frames at each of two levels"


def test_a_picture_of_many_frames_and_any_letters(made: Explanation, tmp_path: Path) -> None:
    level = made.levels[0]
    many = 60
    wide = replace(
        level,
        frames=((0.0,),) * many,
        frame_groups=((0,),) * many,
        interaction=np.zeros((len(level.words), many)),
        video_weights=np.full(many, 1 / many),
        words=("ein sehr langes Wort " * 9, *level.words[1:]),
    )
    strange = replace(made, levels=(wide,), query="красный \x1b 红 " * 30, video=tmp_path / os.fsdecode(b"\xff.mp4"))
    assert cell_width(strange) == CELL_WIDTHS[0]
    assert draw_picture(strange, None).width == 2 * MARGIN + MAP_LEFT + many * CELL_WIDTHS[0]


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
    assert len(images) == 2 * 4, "each frame at each level"
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


@pytest.mark.parametrize(
    ("limit", "value", "number"),
    [(0.6, 0.6, "0.60"), (0.012, -0.0034, "-0.003"), (12.3, 12.3, "12"), (0.0, 0.0, "0"), (1e-12, 1e-12, "0")],
)
def test_numbers_of_a_map_have_two_digits(limit: float, value: float, number: str) -> None:
    assert HeatScale(limit).number(value) == number


def test_colours_of_a_map() -> None:
    scale = HeatScale.of(np.array([-0.5, 0.25]))
    assert scale.limit == 0.5
    assert scale.colour(-0.5) == "#2166ac"
    assert scale.colour(0.0) == "#f7f7f7" == HeatScale(0.0).colour(0.0)
    assert (scale.ink(-0.5), scale.ink(0.1)) == ("#ffffff", "#18181b")
