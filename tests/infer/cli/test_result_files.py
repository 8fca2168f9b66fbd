"""Files that a search writes: moments, sheets, timelines; and the desktop's player."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer.video.reader import probe
from tests.builders.command_line import run
from tests.builders.video_files import spoil
from tests.paths import ROOT


def test_moments_are_saved_and_json_names_them(search: list[str], tmp_path: Path) -> None:
    done = run(*search, "-q", "blue", "-q", "red", "-k", "2", "--save-clips", tmp_path / "found", "--json")
    assert done.returncode == 0
    assert f"note: 4 moments written to {tmp_path / 'found'}: " in done.stderr
    answers = json.loads(done.stdout)["answers"]
    saved = [Path(result["saved_as"]) for answer in answers for result in answer["results"]]
    assert sorted(saved) == sorted((tmp_path / "found").iterdir())
    assert [path.name[:4] for path in saved] == ["1-01", "1-02", "2-01", "2-02"]
    for path, result in zip(saved, [result for answer in answers for result in answer["results"]], strict=True):
        seconds = result["end_seconds"] - result["start_seconds"]
        assert probe(path).duration_seconds == pytest.approx(seconds, abs=0.2)
    again = run(*search, "-q", "blue", "-q", "red", "-k", "2", "--save-clips", tmp_path / "found")
    assert again.returncode == 1
    assert "exists already and is kept: move it, or give another folder" in again.stderr


def test_a_sheet_is_written_once(search: list[str], tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    done = run(*search, "-q", "red", "--sheet", sheet)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert f"note: contact sheet written to {sheet}\n" in done.stderr
    assert sheet.read_text().count("<img") == 3
    again = run(*search, "-q", "red", "--sheet", sheet)
    assert (again.returncode, again.stdout) == (1, "")
    assert "exists already: give --force to overwrite it, or another --sheet" in again.stderr
    assert run(*search, "-q", "blue", "--sheet", sheet, "--force").returncode == 0


def test_a_timeline_is_written(search: list[str], tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    done = run(*search, "-q", "red", "--edl", tmp_path / "found.otio")
    assert done.returncode == 0
    assert json.loads((tmp_path / "found.otio").read_text())["OTIO_SCHEMA"].startswith("Timeline")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sheet", "sheet.gif"], "sheet.gif is of no known format of sheets"),
        (["--edl", "found.aaf"], "found.aaf is of no known format of timelines"),
        (
            ["--sheet", "none/sheet.png"],
            "there is no folder none to write sheet.png to: make it, or give another --sheet",
        ),
        (["--save-clips", "README.md"], "README.md is a file: give a folder to --save-clips"),
        (["--open"], "there is no desktop here to open a result on: leave out --open"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_indexed(
    library: Path, bundle: Path, tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    done = run(*arguments, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "i.sqlite").exists()


def test_files_do_not_go_with_captions(library: Path) -> None:
    done = run("retrieve", "--video", library / "red.mp4", "--captions", "captions.txt", "--sheet", "a.png")
    assert done.returncode == 2


def test_videos_that_cannot_be_read_any_more_are_told_once(bundle: Path, library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("red.mp4", "green then blue.mkv"):
        (folder / name).write_bytes((library / name).read_bytes())
    options = ("--bundle", bundle, "--index", tmp_path / "i.sqlite", "--min-match", "0")
    arguments = ("retrieve", "--videos", folder, *options, "-q", "red")
    assert run(*arguments).returncode == 0
    spoil(folder / "red.mp4")
    done = run(*arguments, "--no-update", "--save-clips", tmp_path / "found", "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.count(f"{folder / 'red.mp4'}") == 1
    assert len(list((tmp_path / "found").iterdir())) == 1
    assert (tmp_path / "sheet.png").exists()


def test_the_first_result_is_opened_without_a_shell(search: list[str], library: Path, tmp_path: Path) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    env = {"DISPLAY": ":0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run(*search, "-q", "red", "--open", env=env)
    assert done.returncode == 0
    assert (tmp_path / "opened").read_text() == f"{library / 'red.mp4'}\n"
    assert f"note: opened {library / 'red.mp4'}; the moment is at 0:00.0\n" in done.stderr
    assert run(*search, "-q", "red", "--open", "--save-clips", tmp_path / "f", env=env).returncode == 0
    assert (tmp_path / "opened").read_text().startswith(f"{tmp_path}/f/01 red ")
    opener.write_text("#!/bin/sh\nexit 3\n")
    failed = run(*search, "-q", "red", "--open", env=env)
    assert failed.returncode == 1
    assert "(xdg-open found no program for it): leave out --open, and open it by hand" in failed.stderr
    assert (
        "note: nothing was found that could be opened"
        in run(*search, "-q", "red", "--path", "x", "--open", env=env).stderr
    )


def test_a_search_without_files_imports_nothing_for_them(search: list[str]) -> None:
    script = (
        "import sys\nfrom hbi_infer.cli import app\n"
        "try:\n    app(sys.argv[1:], standalone_mode=False)\nexcept BaseException:\n    pass\n"
        "print([name for name in sys.modules if name in ('PIL', 'av', 'opentimelineio', 'hbi_infer.video.photo') "
        "or name.startswith('hbi_infer.render.') and name.rpartition('.')[2] in "
        "('contact_sheet', 'timeline', 'saved_clips')])"
    )
    command = [sys.executable, "-c", script, *search, "-q", "red", "--no-update"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) == 4
