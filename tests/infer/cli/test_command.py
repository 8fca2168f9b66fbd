"""The command line as a whole: help, version, errors in one line, streams that are closed or full."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer import __version__
from tests.builders.command_line import COMMAND, errors_in_turn, on_terminal, run
from tests.builders.tiny_bundle import NOTICE, write_video
from tests.paths import ROOT


def test_help_of_every_command_has_an_example() -> None:
    listed = run("--help").stdout
    for command in ("index", "retrieve", "qa", "caption", "info"):
        assert re.search(rf"^  {command} +\w", listed, re.MULTILINE)
        assert f"\n  hbi-infer {command}" in run(command, "--help").stdout


@pytest.mark.parametrize("command", ["retrieve", "qa", "caption"])
def test_help_imports_nothing_heavy(command: str) -> None:
    script = (
        f"import sys; from hbi_infer.cli import app; app(['{command}', '--help'], standalone_mode=False);"
        "print([name for name in ('numpy', 'av', 'onnxruntime', 'tokenizers', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert run("--version").stdout == f"hbi-infer {__version__}\n"


def test_a_name_that_is_not_text(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    name = os.fsdecode(b"\xff\n.mp4")
    write_video(folder / "video.mp4", "red", seconds_each=1.0).rename(folder / name)
    arguments = ("retrieve", "--videos", folder, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    assert run(*arguments, env=env).stdout.split("\t")[3] == f"{folder}/\\udcff\\n.mp4"
    (answer,) = json.loads(run(*arguments, "--json", env=env).stdout)["answers"]
    assert answer["results"][0]["path"] == f"{folder}/{name}"
    command = [*COMMAND, *map(str, arguments), "--csv"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True)
    assert b"/\xff\n.mp4" in done.stdout, "as it is, in quotes"


def test_nothing_that_is_typed_or_named_moves_the_cursor_of_a_terminal(bundle: Path, tmp_path: Path) -> None:
    folder, evil = tmp_path / "videos", "\x1b]0;x\x07\n\x9b31m\u202e=1\r"
    write_video(folder / "video.mp4", "red", seconds_each=1.0).rename(folder / f"{evil}.mp4")
    (folder / f"{evil}.mxf").touch()
    (folder / f"{evil}.avi").write_bytes(b"x" * 100)
    options = ("--bundle", bundle, "--index", tmp_path / "i.sqlite")
    run("index", folder, *options)  # a progress bar moves the cursor
    search = ("retrieve", "--videos", folder, *options, "-q", f"red {evil}", "-v")
    for arguments in ((*search,), (*search, "--csv"), (*search, "--json"), ("info", evil), ("retrieve", f"--{evil}")):
        status, shown = on_terminal(*arguments)
        assert status in (0, 1, 2, 3)
        assert not set(shown) & set("\x1b\x07\x9b\u202e\r"), (arguments, shown)
        assert "1b]0;x" in shown


def test_a_letter_that_the_terminal_lacks_is_an_escape(bundle: Path, tmp_path: Path) -> None:
    """And a byte of a name that is no letter is itself, as ever."""
    folder = tmp_path / "videos"
    write_video(folder / "日é.mp4", "red", seconds_each=1.0)
    write_video(folder / "video.mp4", "red", seconds_each=1.0).rename(folder / os.fsdecode(b"\xff.mp4"))
    arguments = ("retrieve", "--videos", folder, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    command = [*COMMAND, *map(str, arguments), "--csv", "--no-dedupe"]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    lines = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout.splitlines()[1:]
    assert {line.rsplit(b"/", 1)[1].split(b",")[0] for line in lines} == {b"\\u65e5\xe9.mp4", b"\xff.mp4"}


def test_verbose_says_which_device(search: list[str]) -> None:
    done = run(*search, "--query", "red", "--verbose", "--device", "cpu")
    assert re.search(r"^note: model tiny on cpu \(\d+ threads?\), as asked$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query", "red", "--device", "tpu"], "there is no device 'tpu'; choose one of: auto, cpu"),
        (["--query", " "], "a query is empty"),
        (["--query", "red", "--bundle", "/nowhere"], "there is no bundle at /nowhere"),
        (["--query", "red", "--videos", "/nowhere"], "/nowhere"),
        (["--queries", "/nowhere"], "cannot read /nowhere (No such file or directory): give a UTF-8"),
        (["--like", "/nowhere.mp4"], "there is no file /nowhere.mp4"),
    ],
)
def test_an_error_is_one_line(search: list[str], arguments: list[str], message: str) -> None:
    done = run(*search, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_a_folder_that_may_not_be_entered_is_told_in_one_line(library: Path, bundle: Path, tmp_path: Path) -> None:
    private, captions = tmp_path / "private", tmp_path / "captions.txt"
    private.mkdir()
    captions.write_text("red\n")
    video, model = library / "red.mp4", ["--bundle", bundle]
    commands: dict[str, list[str | Path]] = {
        f"cannot look at {private}/like.mp4": ["retrieve", "--videos", library, "--like", private / "like.mp4"],
        f"cannot look at {private}/a.mp4": ["retrieve", "--video", private / "a.mp4", "--captions", captions],
        f"{private}/model cannot be read as a bundle": ["info", private / "model"],
        f"{private}/other cannot be read as a bundle": ["caption", video, "--bundle", private / "other"],
        f"cannot look at {private}/b.mp4": ["qa", "--video", private / "b.mp4", "-q", "why?"],
        f"cannot look at {private}/c.mp4": ["explain", "--video", private / "c.mp4", "-q", "red", *model],
        f"cannot look at {private}/e.png": ["explain", "--video", video, "-q", "red", "--out", private / "e.png"],
        f"cannot look at {private}/d.mp4": ["caption", private / "d.mp4"],
        f"cannot look at {private}/x.jsonl": ["caption", video, "--out", private / "x.jsonl"],
        f"cannot look at {private}/srt": ["caption", library, "--out", private / "srt", "--format", "srt"],
        f"cannot look at {private}/b.json": ["bench", "--json", private / "b.json"],
    }
    private.chmod(0)
    try:
        errors = errors_in_turn([*commands.values()])
    finally:
        private.chmod(0o700)
    for error, message in zip(errors, commands, strict=True):
        assert error.startswith(f"error: {message} (")
        assert "Permission denied" in error


def test_a_name_that_is_too_long_is_told_in_one_line(library: Path) -> None:
    name = "a long sentence " * 25
    like, bundle = errors_in_turn([["retrieve", "--videos", library, "--like", name], ["info", name]])
    assert like.startswith(f"error: cannot look at {name} (File name too long): ")
    assert bundle.startswith(f"error: cannot look at {name} (File name too long): ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieve", "--query", "red"], "need --videos DIR"),
        (["retrieve", "--videos", "."], "give one of --query (or --queries), --like, and --video with --captions"),
        (["retrieve", "--videos", ".", "--query", "red", "--like", "a.mp4"], "give one of --query"),
        (["retrieve", "--video", "a.mp4"], "--video and --captions go together"),
        (["retrieve", "--videos", ".", "--like", "a.mp4", "--rerank", "5"], "--rerank goes with --query"),
        (["retrieve", "--videos", ".", "--query", "red", "--json", "--csv"], "give --json or --csv, not both"),
        (["retrieve", "--videos", ".", "--query", "red", "--top-k", "0"], "Invalid value for '--top-k'"),
        (["retrieve", "--videos", ".", "--query", "red", "--newer", "soon"], "'soon' does not match the formats '%Y"),
        (["retrieve", "--videos", ".", "--query", "red", "--older", "20261126"], "Invalid value for '--older'"),
        (["retrieve", "--videos", ".", "--query", "red", "--no-update", "--rebuild"], "--no-update nothing: give one"),
        (["index", ".", "--verify", "--rebuild"], "--rebuild throws it away: give one of them"),
        (["qa", "--video", ".", "-q", "what?", "--no-update", "--rebuild"], "--no-update nothing: give one"),
        (["retreive"], "Did you mean 'retrieve'"),
        (["index"], "Missing argument"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())


def test_a_bug_keeps_its_traceback(bundle: Path) -> None:
    script = (
        "import hbi_infer.model.bundle as bundle; from hbi_infer.cli import main; import sys;"
        "bundle.Bundle.load = None; sys.argv[1:] = ['info']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("TypeError: 'NoneType' object is not callable\n")


def test_a_reader_that_leaves_ends_it_quietly(search: list[str], tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("red green blue\n" * 2000)  # more than a pipe holds
    # Python's unbuffered mode does not notice that the reader left in the middle of a write.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [*COMMAND, *search, "--queries", str(queries)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"red green blue\t1\t")
    process.stdout.close()
    assert process.stderr.read().decode() == f"note: {NOTICE}\n"
    process.stderr.close()
    assert process.wait(timeout=30) == 141


def test_stdout_on_a_full_disk_is_one_line(search: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *search, "--query", "red"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    message = "error: cannot write the results (No space left on device): send them to another place"
    assert done.stderr.decode().splitlines()[1:] == [message]


@pytest.mark.parametrize(("closed", "other"), [("1", "stderr"), ("2", "stdout")])
def test_a_stream_may_be_closed_from_the_start(search: list[str], closed: str, other: str) -> None:
    command = [*COMMAND, *search, "--query", "red", "--top-k", "1"]
    whole = subprocess.run(command, cwd=ROOT, capture_output=True)
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}>&-', "sh", *command], cwd=ROOT, capture_output=True)
    assert (done.returncode, getattr(done, other)) == (0, getattr(whole, other))


def test_nobody_need_read_the_notes(search: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *search, "--query", "red"], cwd=ROOT, stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    assert done.returncode == 0
    assert done.stdout.startswith(b"red\t1\t")
