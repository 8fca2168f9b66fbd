"""`hbi-infer qa`, as real processes over really encoded videos."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.builders.command_line import on_terminal, run
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.builders.video_files import spoil


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "qa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "sub" / "green, then blue.mkv", "green", "green", "green", "blue", seconds_each=1.0)
    return folder


@pytest.fixture(scope="module")
def ask(folder: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a question about the indexed folder."""
    path = tmp_path_factory.mktemp("index") / "i.sqlite"
    assert run("index", folder, "--bundle", bundle, "--index", path).returncode == 0
    return ["qa", "--video", str(folder), "--bundle", str(bundle), "--index", str(path)]


def test_lines_for_a_pipe(ask: list[str], folder: Path) -> None:
    done = run(*ask, "--question", "what colour is it?", "-q", "is it red?", "--top-k", "2")
    assert (done.returncode, done.stderr) == (0, f"note: {NOTICE}\n")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:6] for line in lines] == [
        ["what colour is it?", f"{folder}/red.mp4", "1", "0.000", "2.000", "red"],
        ["what colour is it?", f"{folder}/sub/green, then blue.mkv", "1", "0.000", "2.000", "green"],
        ["is it red?", f"{folder}/red.mp4", "1", "0.000", "2.000", "don't know"],
        ["is it red?", f"{folder}/sub/green, then blue.mkv", "1", "0.000", "2.000", "green"],
    ]
    assert float(lines[0][6]) > 0.95 > 0.55 > float(lines[2][6])
    assert re.fullmatch(r"red 0\.9\d{5}; (blue|green) 0\.0\d{5}", lines[0][7])


def test_all_clips_and_a_threshold(ask: list[str]) -> None:
    lines = run(*ask, "-q", "what colour?", "--all-clips", "--threshold", "0.9").stdout.splitlines()
    assert [(line.split("\t")[2], line.split("\t")[5]) for line in lines] == [
        ("1", "red"),
        ("1", "green"),
        ("2", "don't know"),
    ]
    sure = run(*ask, "-q", "what colour?", "--all-clips", "--threshold", "0").stdout.splitlines()
    assert sure[2].split("\t")[5] in ("green", "blue")


def test_json_has_everything(ask: list[str], folder: Path, bundle: Path) -> None:
    done = run(*ask, "-q", "what colour is it?", "-q", "what colour then red then blue?", "--json")
    document = json.loads(done.stdout)
    assert document["model"]["path"] == str(bundle)
    assert (document["videos"], document["min_probability"]) == (str(folder), 0.5)
    assert document["update"]["unchanged"] == 2
    first, long = document["questions"]
    assert (first["question"], first["cut_at_word"], long["cut_at_word"]) == ("what colour is it?", None, 6)
    best = first["answers"][0]
    assert best.keys() == {
        "question", "path", "clip", "start_seconds", "end_seconds", "text", "probability", "choices", "unfamiliar"
    }  # fmt: skip
    assert (best["path"], best["text"], best["choices"][0]["text"]) == (str(folder / "red.mp4"), "red", "red")
    assert "warning: the question 'what colour then red" in done.stderr
    unknown = json.loads(run(*ask, "-q", "is it red?", "--json").stdout)["questions"][0]["answers"][0]
    assert unknown["text"] is None


def test_csv_and_questions_from_a_file(ask: list[str], tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("what colour?\n\n is it green? \n", encoding="utf-8")
    text = run(*ask, "--questions", tmp_path / "questions.txt", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["question"] for row in rows] == ["what colour?"] * 2 + ["is it green?"] * 2
    assert list(rows[0]) == [
        "question", "file", "clip", "start_seconds", "end_seconds", "answer", "probability", "likeliest"
    ]  # fmt: skip
    assert rows[1]["file"].endswith("green, then blue.mkv")


def test_a_table_on_a_terminal_after_indexing_with_a_bar(folder: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ("qa", "--video", folder, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "what colour?")
    status, shown = on_terminal(*arguments)
    assert status == 0
    assert "2/2 videos, " in shown
    assert re.search(r"^ *file +clip +answer +likeliest", shown, re.M)
    assert re.search(r"red\.mp4 +0:00\.0-0:02\.0 +red +red 99%, ", shown)


def test_one_file_indexed_or_not(bundle: Path, tmp_path: Path) -> None:
    """Indexed in the user's cache folder it is found there, even if the file cannot be read any more."""
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    arguments = ("qa", "--video", video, "-q", "what colour?", "--bundle", bundle)
    decoded = json.loads(run(*arguments, "--json", env=env).stdout)
    assert (decoded["source"], decoded["video"]) == ("video", str(video))
    assert not list((tmp_path / "cache").rglob("*.sqlite")), "asking about a file makes no index"
    assert run("index", video.parent, "--bundle", bundle, env=env).returncode == 0
    spoil(video)
    done = run(*arguments, env=env)
    assert (done.returncode, done.stdout.split("\t")[5]) == (0, "red")
    assert json.loads(run(*arguments, "--json", env=env).stdout)["source"] == "index"
    spoiled = run(*arguments, env={"XDG_CACHE_HOME": str(tmp_path / "other")})
    assert spoiled.returncode == 1
    assert "red.mp4" in spoiled.stderr.splitlines()[-1]


def test_failed_files_are_listed_each_time(folder: Path, bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "red.mp4", "red")
    (videos / "damaged.mp4").write_bytes(b"\0" * 100)
    arguments = ("qa", "--video", videos, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "what colour?")
    for _ in range(2):
        done = run(*arguments)
        assert done.returncode == 3
        assert done.stdout.split("\t")[5] == "red"
        assert done.stderr.splitlines()[-1].startswith("warning: damaged.mp4 cannot be answered about: ")
    (videos / "red.mp4").unlink()
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    warning, error = done.stderr.splitlines()[-2:]
    assert warning.startswith("warning: damaged.mp4 is ")
    assert error.startswith(f"error: none of the 1 videos in {videos} can be read: give a folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", ""], "a question is empty: write one, such as 'what colour is the circle?'"),
        (["-q", "what?", "-q", "a red video"], "'a red video' is not a question: write one that ends in a question"),
        (["-q", "a red video"], "use hbi-infer retrieve"),
        (["--questions", "/nowhere"], "cannot read /nowhere"),
        (["-q", "what?", "--bundle", "/nowhere"], "there is no bundle at /nowhere"),
    ],
)
def test_an_error_is_one_line(ask: list[str], arguments: list[str], message: str) -> None:
    done = run(*ask, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_what_cannot_be_done_is_told_before_anything_is_indexed(folder: Path, bundle: Path, tmp_path: Path) -> None:
    index_file = tmp_path / "i.sqlite"
    arguments = ("qa", "--video", folder, "--bundle", bundle, "--index", index_file)
    assert run(*arguments, "-q", "red").returncode == 1
    other = write_tiny_bundle(tmp_path / "tiny")
    done = run(*arguments, "-q", "what?", "--bundle", other)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: the bundle {other} does not do qa, only retrieve: train a model with 'hbi-train qa'" in done.stderr
    assert not index_file.exists()
    done = run(*arguments, "-q", "what?", "--no-update")
    assert f"error: nothing of {folder} is indexed: leave out --no-update\n" in done.stderr


def test_a_file_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    done = run("qa", "--video", tmp_path / "none.mp4", "-q", "what?", "--bundle", bundle)
    assert done.returncode == 1
    assert f"error: there is no file {tmp_path}/none.mp4, and no index that holds it: give a video" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "what?"], "Missing option '--video'"),
        (["--video", "."], "give --question, or --questions FILE"),
        (["--video", ".", "-q", "what?", "--threshold", "1.5"], "Invalid value for '--threshold'"),
        (["--video", ".", "-q", "what?", "--json", "--csv"], "give --json or --csv, not both"),
        (["--video", "a.mp4", "-q", "what?", "--index", "i"], "are for a folder of videos; a.mp4 is none"),
        (["--video", "a.mp4", "-q", "what?", "--no-update"], "are for a folder of videos"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    done = run("qa", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
