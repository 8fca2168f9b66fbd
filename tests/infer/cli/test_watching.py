"""`hbi-infer index --watch` in a process of its own: lines, signals, a second watcher, a search beside it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from hbi_infer.cli.watching import IN_WORDS
from hbi_infer.index.watch import Situation
from tests.builders.command_line import COMMAND, run
from tests.builders.tiny_bundle import write_video
from tests.paths import ROOT


@contextmanager
def watching(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "index", *map(str, arguments), "--watch"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return line


def test_a_line_for_each_change_until_ctrl_c(bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "red.mp4", "red", seconds_each=1.0)
    options = ("--bundle", bundle, "--index", tmp_path / "i.sqlite")
    with watching(videos, *options, "--json") as process:
        first, second = (json.loads(read_line(process)) for _ in range(2))
        assert (first["event"], first["folder"]) == ("watching", str(videos))
        assert {key: second[key] for key in second if key != "time"} == {
            "event": "added",
            "path": "red.mp4",
            "source": "",
            "clips": 1,
            "reason": "",
        }
        search = ("retrieve", "--videos", videos, *options, "--query", "red", "--csv")
        assert f"{videos}/red.mp4" in run(*search).stdout
        refused = run("index", videos, *options, "--watch")
        assert refused.returncode == 1
        assert f"error: another process watches the index {tmp_path / 'i.sqlite'} already" in refused.stderr
        (videos / "red.mp4").rename(videos / "blue.mp4")
        moved = json.loads(read_line(process))
        assert (moved["event"], moved["source"], moved["path"]) == ("moved", "red.mp4", "blue.mp4")
        assert f"{videos}/blue.mp4" in run(*search).stdout
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (0, "")
    assert stderr.splitlines()[-1] == "note: ended: all that was told is stored"
    assert "Traceback" not in stderr


def test_sigterm_in_the_middle_of_an_update_ends_it_cleanly(bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    first = write_video(videos / "00.mp4", "red", seconds_each=2.0)
    content = first.read_bytes()
    for number in range(1, 300):
        (videos / f"{number:02}.mp4").write_bytes(content)
    options = ("--bundle", bundle, "--index", tmp_path / "i.sqlite")
    with watching(videos, *options) as process:
        told = [read_line(process) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in stderr) == (0, False)
    assert stderr.splitlines()[-1] == "note: ended: all that was told is stored"
    told += stdout.splitlines()
    assert all(line.split(" ", 2)[2].startswith("added ") for line in told)
    verified = run("index", videos, *options, "--verify", "--json")
    found = json.loads(verified.stdout)["verified"]
    assert (found["fault"], found["damaged"]) == ("", [])
    assert len(told) <= found["videos"] < 300


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--watch", "--verify"), "run them before it"),
        (("--watch", "--retry-failed"), "run them before it"),
        (("--poll", "5"), "give both"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    done = run("index", tmp_path, *options)
    assert (done.returncode, told in " ".join(done.stderr.split())) == (2, True)


def test_every_situation_has_words() -> None:
    assert set(IN_WORDS) == set(get_args(Situation))
