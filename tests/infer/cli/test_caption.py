"""`hbi-infer caption`, as real processes over really encoded videos, some of which are interrupted and killed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.command_line import on_terminal, run
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.builders.video_files import spoil
from tests.infer.render.test_caption_file import cues
from tests.paths import ROOT

SLOWLY = (
    "import time; from hbi_infer.model.caption_decoder import CaptionDecoder; begin = CaptionDecoder.begin;"
    "CaptionDecoder.begin = lambda self, video: (time.sleep(0.3), begin(self, video))[1];"
    "from hbi_infer.cli import main; main()"
)
"""The command with a model that takes a while for each batch."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "caption")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, of which one is damaged."""
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "green, blue.mp4", "green", "blue")
    write_video(folder / "sub" / "red.mkv", "red", seconds_each=1.0)
    (folder / "damaged.mp4").write_bytes(b"\0" * 100)
    return folder


@pytest.fixture(scope="module")
def caption(folder: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that caption the indexed folder."""
    path = tmp_path_factory.mktemp("index") / "i.sqlite"
    assert run("index", folder, "--bundle", bundle, "--index", path).returncode == 3
    return ["caption", str(folder), "--bundle", str(bundle), "--index", str(path)]


def expected(folder: Path) -> list[tuple[str, float, float, str]]:
    return [
        (f"{folder}/green, blue.mp4", 0.0, 2.0, "a green video"),
        (f"{folder}/green, blue.mp4", 2.0, 4.0, "a blue video"),
        (f"{folder}/sub/red.mkv", 0.0, 1.0, "a red video"),
    ]


def test_lines_for_a_pipe_and_a_list_of_what_failed(caption: list[str], folder: Path) -> None:
    done = run(*caption)
    assert done.returncode == 3
    note, warning = done.stderr.splitlines()
    assert note == f"note: {NOTICE}"
    assert warning.startswith("warning: damaged.mp4 cannot be captioned: ")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(line[0], float(line[2]), float(line[3]), line[4]) for line in lines] == expected(folder)
    assert [line[1] for line in lines] == ["1", "2", "1"]
    assert all(-0.1 < float(line[5]) < 0 for line in lines)


def test_json_and_options(caption: list[str], folder: Path) -> None:
    arguments = ("--json", "--max-tokens", "2", "--beam-size", "1", "--length-penalty", "0.5", "--no-repeat-ngram", "2")
    document = json.loads(run(*caption, *arguments).stdout)
    assert document["decoding"] == {
        "max_tokens": 2,
        "beam_size": 1,
        "length_penalty": 0.5,
        "no_repeat_ngram": 2,
        "nucleus": None,
        "temperature": 1.0,
        "seed": 0,
    }
    assert document["index"]["clips"] == 3
    assert [(made["text"], made["is_complete"]) for made in document["captions"]] == [
        ("a green", False),
        ("a blue", False),
        ("a red", False),
    ]
    drawn = json.loads(run(*caption, "--json", "--nucleus", "0.5", "--temperature", "2", "--seed", "3").stdout)
    assert {key: drawn["decoding"][key] for key in ("beam_size", "nucleus", "temperature", "seed")} == {
        "beam_size": 1,
        "nucleus": 0.5,
        "temperature": 2.0,
        "seed": 3,
    }


def test_one_file_indexed_or_not(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "red.mp4", "red", "blue")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    arguments = ("caption", video, "--bundle", bundle)
    decoded = run(*arguments, env=env)
    assert [line.split("\t")[4] for line in decoded.stdout.splitlines()] == ["a red video", "a blue video"]
    assert run("index", video.parent, "--bundle", bundle, env=env).returncode == 0
    spoil(video)
    document = json.loads(run(*arguments, "--json", env=env).stdout)
    assert (document["source"], len(document["captions"])) == ("index", 2)
    out = tmp_path / "red.srt"
    done = run(*arguments, "--out", out, env=env)
    assert (done.returncode, done.stdout) == (0, f"2 captions in {out}\n")
    assert cues(out) == [(0.0, 2.0, "a red video"), (2.0, 4.0, "a blue video")]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "JSONL"])
def test_a_file_of_a_folder(caption: list[str], folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"captions.{suffix}"
    done = run(*caption, "--out", out)
    assert (done.returncode, done.stdout) == (3, f"3 captions in {out}\n")
    if suffix == "csv":
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        found = [(row["file"], float(row["start_seconds"]), float(row["end_seconds"]), row["caption"]) for row in rows]
    else:
        made = [json.loads(line) for line in out.read_text().splitlines()]
        found = [(one["path"], one["start_seconds"], one["end_seconds"], one["text"]) for one in made]
    assert found == expected(folder)
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "nothing else is left"
    content = out.read_bytes()
    refused = run(*caption, "--out", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: {out} exists already: give --force to overwrite it, or another --out\n"
    out.write_bytes(b"")
    assert run(*caption, "--out", out, "--force").returncode == 3
    assert out.read_bytes() == content, "the same every time"


@pytest.mark.parametrize("suffix", ["srt", "vtt"])
def test_subtitles_of_a_folder(caption: list[str], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "subtitles"
    assert run(*caption, "--out", out, "--format", suffix).returncode == 3
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [f"green, blue.{suffix}", f"sub/red.{suffix}"]
    assert cues(out / f"green, blue.{suffix}") == [(0.0, 2.0, "a green video"), (2.0, 4.0, "a blue video")]
    refused = run(*caption, "--out", out, "--format", suffix)
    assert refused.returncode == 1
    assert f".{suffix} exists already: give --force" in refused.stderr
    assert run(*caption, "--out", out, "--format", suffix, "--force").returncode == 3


def test_tables_and_progress_bars_on_a_terminal(folder: Path, bundle: Path, tmp_path: Path) -> None:
    status, shown = on_terminal("caption", folder, "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    assert status == 3
    assert re.search(r"^indexing .* 3/3 videos, ", shown, re.M)
    assert re.search(r"captioning .* 3/3 clips, \d+\.\d clips/s, .* left", shown)
    assert re.search(r"green, blue\.mp4\s+clip +caption *\n.*\n *0:00\.0-0:02\.0 +a green video *\n", shown)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> list[str]:
    """The arguments that caption 96 indexed clips: six batches."""
    folder = tmp_path_factory.mktemp("many") / "videos"
    firsts = [write_video(folder / f"{colour}.mp4", colour, seconds_each=2.0) for colour in ("red", "green", "blue")]
    for number in range(93):
        os.link(firsts[number % 3], folder / f"{number:02}.mp4")
    path = folder.parent / "i.sqlite"
    assert run("index", folder, "--bundle", bundle, "--index", path).returncode == 0
    return ["caption", str(folder), "--bundle", str(bundle), "--index", str(path)]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_same_command_goes_on_where_a_run_was_stopped(
    many: list[str], tmp_path: Path, sent: signal.Signals, suffix: str
) -> None:
    """To the same file, to the byte, as a run that nothing stopped."""
    assert run(*many, "--out", tmp_path / f"whole.{suffix}").returncode == 0
    out, partial = tmp_path / f"captions.{suffix}", tmp_path / f"captions.{suffix}.partial"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *many, "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not partial.exists() or partial.read_bytes().count(b"\n") < 20):
        time.sleep(0.02)
    os.killpg(process.pid, sent)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130 if sent == signal.SIGINT else -sent, "")
    if sent == signal.SIGINT:
        assert stderr.splitlines() == [
            f"note: {NOTICE}",
            "error: interrupted: what was indexed or written before is kept",
        ]
    assert not out.exists()
    kept = [json.loads(line) for line in partial.read_text().splitlines()]
    assert 20 <= len(kept) < 96
    done = run(*many, "--out", out)
    assert (done.returncode, done.stdout) == (0, f"96 captions in {out}\n")
    assert f"note: going on after {len(kept) - 1} captions in {partial}\n" in done.stderr
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not partial.exists()


def test_an_unfinished_run_with_other_options(many: list[str], tmp_path: Path) -> None:
    out, partial = tmp_path / "captions.jsonl", tmp_path / "captions.jsonl.partial"
    # The folder goes into the place of the file, so that the run fails when all captions are there.
    script = f"import pathlib; {SLOWLY.replace('0.3', '0')}"
    script = script.replace(
        "begin(self, video))", f"pathlib.Path({str(out)!r}).mkdir(exist_ok=True), begin(self, video))"
    )
    script = script.replace(")[1];", ")[-1];")
    command = [sys.executable, "-c", script, *many, "--out", str(out)]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "captions.jsonl exists already: give --force" in failed.stderr
    out.rmdir()
    assert len(partial.read_text().splitlines()) == 97
    refused = run(*many, "--out", out, "--beam-size", "2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == (
        f"error: {partial} was begun with beam_size 4 (now 2): give the same to go on with it, or give --force to "
        "begin anew"
    )
    done = run(*many, "--out", out, "--beam-size", "2", "--force")
    assert done.returncode == 0
    assert "going on" not in done.stderr
    assert len(out.read_text().splitlines()) == 96


def test_a_file_that_cannot_be_written_costs_no_other(bundle: Path, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "subtitles"
    for name in ("a.mp4", "a.mkv", "sub/b.mp4"):
        write_video(videos / name, "red", seconds_each=1.0)
    out.mkdir()
    (out / "sub").touch()
    arguments = ("caption", videos, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "--out", out)
    done = run(*arguments, "--format", "srt")
    assert (done.returncode, done.stdout) == (3, f"2 captions in {out}\n")
    assert done.stderr.splitlines()[1:] == [
        f"warning: sub/b.mp4 cannot be captioned: cannot write {out}/sub/b.srt (File exists): give another --out"
    ]
    assert sorted(path.name for path in out.iterdir()) == ["a.mkv.srt", "a.mp4.srt", "sub"]
    (out / "sub").unlink()
    done = run(*arguments, "--format", "srt", "--force")
    assert (done.returncode, done.stdout) == (0, f"3 captions in {out}\n")
    assert "going on after 3 captions" in done.stderr
    assert not (tmp_path / "subtitles.partial").exists()


def test_a_folder_in_which_every_file_fails(bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mkv"):
        (videos / name).write_bytes(b"\0" * 100)
    out = tmp_path / "captions.jsonl"
    arguments = ("caption", videos, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "--out", out)
    for _ in range(2):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        *_, one, other, error = done.stderr.splitlines()
        assert one.startswith("warning: a.mp4 is ")
        assert other.startswith("warning: b.mkv is ")
        assert error.startswith(f"error: none of the 2 videos in {videos} can be read: give a folder")
    assert not list(tmp_path.glob("captions*"))


def test_a_bundle_that_writes_no_captions(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "tiny")
    out, index_file = tmp_path / "captions.jsonl", tmp_path / "i.sqlite"
    done = run("caption", folder, "--bundle", other, "--index", index_file, "--out", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: the bundle {other} does not do caption, only retrieve: train a model with" in done.stderr
    assert not index_file.exists()
    assert not list(tmp_path.glob("captions*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "/nowhere/captions.csv"], "there is no folder /nowhere to write captions.csv to"),
        (["--out", "all.srt"], "all.srt would hold the subtitles of every video in"),
        (["--nucleus", "1.5"], "nucleus is 1.5; it must be more than 0 and at most 1"),
        (["--nucleus", "0.5", "--beam-size", "4"], "drawing from a nucleus needs a beam_size of 1"),
        (["--nucleus", "0.5", "--temperature", "0"], "temperature is 0.0; it must be greater than 0"),
        (["--no-update", "--index", "none.sqlite"], "is indexed: leave out --no-update"),
    ],
)
def test_an_error_is_one_line(caption: list[str], tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*caption, *[str(tmp_path / name) if name == "none.sqlite" else name for name in arguments])
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'VIDEO_OR_DIR'"),
        (
            [".", "--out", "captions.txt"],
            "--out is captions.txt, which does not end in a format; name one of jsonl, csv,",
        ),
        ([".", "--out", "captions", "--format", "ass"], "--format is ass; name one of jsonl, csv, srt, vtt"),
        ([".", "--format", "srt"], "--format and --force go with --out"),
        ([".", "--out", "a.csv", "--json"], "--json and --csv are for the terminal"),
        ([".", "--seed", "3"], "--temperature and --seed go with --nucleus"),
        ([".", "--beam-size", "0"], "Invalid value for '--beam-size'"),
        (["a.mp4", "--workers", "2"], "are for a folder of videos; a.mp4 is none"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    done = run("caption", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
