"""`hbi-infer explain`, as real processes over really encoded videos, and the files that it writes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders.command_line import on_terminal, run
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.paths import ROOT


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
    words = [line for line in lines if line[0] == "words"]
    assert [line[1:3] for line in words] == [[word, f"{n / 2:.3f}"] for word in ("a", "red") for n in range(4)]
    assert max(words, key=lambda line: float(line[3]))[1:3] == ["red", "1.500"]
    lines = lines[len(words) :]
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
    assert run(*arguments, env=env).stdout == before.stdout
    after = run(*arguments, "--out", tmp_path / "why.png", env=env)
    assert after.returncode == 0
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
    assert done.returncode == 0
    score = json.loads(run(*arguments, "--json").stdout)["score"]
    assert done.stdout == (
        f'maps of "a red video" and {folder}/one red.mp4, clip 1 of 1 (0:00.0-0:02.0), score {score:.3f}, '
        f"written to {out}\n"
    )
    content = out.read_bytes()
    if suffix == "json":
        assert json.loads(content) == json.loads(run(*arguments, "--json").stdout)
    elif suffix == "html":
        assert content.startswith(b"<!DOCTYPE html>")
    else:
        assert Image.open(io.BytesIO(content)).format == "PNG"
    document = run(*arguments, "--json", "--out", out, "--force").stdout
    assert json.loads(document) == json.loads(run(*arguments, "--json").stdout)
    refused = run(*arguments, "--out", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: {out} exists already: give --force to overwrite it, or another --out\n"
    out.write_bytes(b"")
    assert run(*arguments, "--out", out, "--force").returncode == 0
    assert out.read_bytes() == content, "the same every time"


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
        (["--out", "FOLDER.png", "--force"], "FOLDER.png (Is a directory): give another --out"),
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
