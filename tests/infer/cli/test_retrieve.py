"""The command line, as real processes over really encoded videos."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import typer

from hbi_infer import __version__
from hbi_infer.api import HBI, Index
from hbi_infer.cli.inputs import FolderOptions, end_with, updated_index
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.paths import ROOT

COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()"]
DROP_RIGHTS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right)
os.execvp(sys.argv[1], sys.argv[1:])
"""
WITHOUT_ROOTS_RIGHTS = [sys.executable, "-c", DROP_RIGHTS]
"""Before a command: root may not read what is closed to it either."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, of which one is damaged."""
    folder = tmp_path_factory.mktemp("library") / "videos"
    write_video(folder / "red.mp4", "red")
    write_video(folder / "green then blue.mkv", "green", "blue", seconds_each=2.0)
    write_video(folder / "more" / "blue.mp4", "blue", seconds_each=1.0)
    (folder / "damaged.mp4").write_bytes(b"\0" * 100)
    return folder


@pytest.fixture(scope="module")
def indexed(library: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index's file of the library."""
    path = tmp_path_factory.mktemp("index") / "library.sqlite"
    assert run("index", library, "--bundle", bundle, "--index", path).returncode == 3
    return path


def run(
    *arguments: str | Path, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `hbi-infer` with stdout and stderr into pipes."""
    return subprocess.run(
        [*prefix, *COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def search(library: Path, bundle: Path, indexed: Path) -> Iterator[list[str]]:
    """The arguments of a search of the indexed library."""
    return ["retrieve", "--videos", str(library), "--bundle", str(bundle), "--index", str(indexed)]


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


def test_index_tells_what_it_did_and_what_failed(library: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ("index", library, "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    first = run(*arguments)
    assert first.returncode == 3
    assert first.stdout.startswith("4 added, 0 changed, 0 removed, 0 unchanged; 4 clips in ")
    assert first.stdout.endswith(f"4 clips in the index {tmp_path / 'i.sqlite'}\n")
    note, warning = first.stderr.splitlines()
    assert note == f"note: {NOTICE}"
    assert warning.startswith("warning: damaged.mp4 cannot be searched: ")
    second = run(*arguments, "--json")
    assert second.returncode == 3, "the damaged file still cannot be searched"
    document = json.loads(second.stdout)
    assert [failure["path"] for failure in document["index"]["failed"]] == ["damaged.mp4"]
    assert document["update"] | {"total_seconds": 0} == {
        "added": 0,
        "changed": 0,
        "removed": 0,
        "unchanged": 4,
        "partial": [],
        "failed": [],
        "clips": 0,
        "clips_per_second": 0.0,
        **dict.fromkeys(("decode_seconds", "wait_seconds", "encode_seconds", "store_seconds"), 0.0),
        "total_seconds": 0,
    }
    retried = json.loads(run(*arguments, "--json", "--retry-failed").stdout)
    assert [failure["path"] for failure in retried["update"]["failed"]] == ["damaged.mp4"]


def test_a_failure_that_may_pass_says_how_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end:
        end_with([VideoFault("a.mp4", "was slow", "too_slow"), VideoFault("b.mp4", "is empty", "damaged")], "searched")
    assert end.value.exit_code == 3
    slow, empty = capsys.readouterr().err.splitlines()
    assert slow.startswith("warning: a.mp4 cannot be searched: was slow; ")
    assert slow.endswith("; try again with hbi-infer index --retry-failed")
    assert empty == "warning: b.mp4 cannot be searched: is empty"


def test_retrieve_indexes_first_then_ranks(library: Path, bundle: Path, tmp_path: Path) -> None:
    """From nothing, with the index in the user's cache folder."""
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--query", "red")
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    first = run(*arguments, env=env)
    assert first.returncode == 3, "the damaged file failed in this run"
    assert "damaged.mp4 cannot be searched" in first.stderr
    assert len(list(tmp_path.glob("hbi-infer/indexes/*.sqlite"))) == 1
    assert sorted(path.name for path in library.iterdir()) == ["damaged.mp4", "green then blue.mkv", "more", "red.mp4"]
    second = run(*arguments, env=env)
    assert (second.returncode, second.stderr) == (0, f"note: {NOTICE}\n")
    assert second.stdout == first.stdout


def test_a_folder_in_which_nothing_can_be_searched(bundle: Path, tmp_path: Path) -> None:
    """It is said each time, not only when the videos are new."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "damaged.mp4").write_bytes(b"\0" * 100)
    arguments = ("retrieve", "--videos", videos, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    for _ in range(2):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        warning, error = done.stderr.splitlines()[-2:]
        assert warning.startswith("warning: damaged.mp4 is ")
        assert error.startswith(f"error: none of the 1 videos in {videos} can be read: give a folder of videos")


def test_lines_for_a_pipe(search: list[str], library: Path) -> None:
    done = run(*search, "--query", "red", "-q", "blue", "--top-k", "2")
    assert (done.returncode, done.stderr) == (0, f"note: {NOTICE}\n")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["red", "1"], ["red", "2"], ["blue", "1"], ["blue", "2"]]
    assert lines[0][3:6] == [f"{library}/red.mp4", "0.000", "2.000"]
    assert {line[3] for line in lines[2:]} == {f"{library}/more/blue.mp4", f"{library}/green then blue.mkv"}
    clip_of_blue = next(line for line in lines[2:] if line[3].endswith("mkv"))
    assert clip_of_blue[4:6] == ["2.000", "4.000"], "the second half of the video"
    assert all(2.0 <= float(seconds) <= 4.0 for seconds in clip_of_blue[6].split())


def test_json_has_everything(search: list[str], library: Path, bundle: Path, indexed: Path) -> None:
    long_query = "a red video then a blue video then green"
    done = run(*search, "--query", "green", "--query", long_query, "--json", "--all-clips")
    document = json.loads(done.stdout)
    assert document["model"]["name"] == "tiny"
    assert document["model"]["path"] == str(bundle)
    assert document["videos"] == str(library)
    [failed] = document["index"].pop("failed")
    assert failed["path"] == "damaged.mp4"
    assert document["index"] == {"path": str(indexed), "clips": 4}
    assert document["update"]["unchanged"] == 4
    green, long = document["answers"]
    assert green["query"] == "green"
    assert green["cut_at_word"] is None
    assert [result["rank"] for result in green["results"]] == [1, 2, 3, 4]
    best = green["results"][0]
    assert best.keys() == {
        "rank", "score", "path", "start_seconds", "end_seconds", "best_frame_seconds", "video_seconds"
    }  # fmt: skip
    assert (best["path"], best["start_seconds"]) == (str(library / "green then blue.mkv"), 0.0)
    assert best["score"] == pytest.approx(1.5, abs=0.05)
    assert (long["query"], long["cut_at_word"]) == (long_query, 7)
    assert "warning: the query 'a red video then" in done.stderr
    assert "cut at word 7, 'video'" in done.stderr


def test_csv(search: list[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*search, "--query", 'blue, "very" blue', "--csv").stdout)))
    assert len(rows) == 3
    assert rows[0]["query"] == 'blue, "very" blue'
    assert list(rows[0]) == ["query", "rank", "score", "file", "start_seconds", "end_seconds", "best_frame_seconds"]


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


def test_a_letter_that_the_terminal_lacks_is_an_escape(bundle: Path, tmp_path: Path) -> None:
    """And a byte of a name that is no letter is itself, as ever."""
    folder = tmp_path / "videos"
    write_video(folder / "日é.mp4", "red", seconds_each=1.0)
    write_video(folder / "video.mp4", "red", seconds_each=1.0).rename(folder / os.fsdecode(b"\xff.mp4"))
    arguments = ("retrieve", "--videos", folder, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    command = [*COMMAND, *map(str, arguments), "--csv"]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    lines = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout.splitlines()[1:]
    assert {line.rsplit(b"/", 1)[1].split(b",")[0] for line in lines} == {b"\\u65e5\xe9.mp4", b"\xff.mp4"}


def test_queries_from_a_file(search: list[str], tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("﻿red\n\n  green \n", encoding="utf-8")
    lines = run(*search, "--queries", str(tmp_path / "queries.txt"), "-q", "blue", "-k", "1").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["blue", "red", "green"]


def test_like_a_video_of_the_folder_and_another_one(search: list[str], library: Path, tmp_path: Path) -> None:
    inside = run(*search, "--like", str(library / "more" / "blue.mp4"), "-k", "1").stdout
    assert inside.split("\t")[3] == f"{library}/green then blue.mkv"
    outside = write_video(tmp_path / "elsewhere.mp4", "red", seconds_each=1.0)
    assert run(*search, "--like", str(outside), "-k", "1").stdout.split("\t")[3] == f"{library}/red.mp4"


def test_captions_of_a_video(bundle: Path, library: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("green\na blue video\nred\n")
    arguments = ("retrieve", "--video", library / "red.mp4", "--captions", captions, "--bundle", bundle)
    assert [line.split("\t")[:1] + line.split("\t")[2:] for line in run(*arguments, "-k", "1").stdout.splitlines()] == [
        ["1", "red", "0.000", "2.000"]
    ]
    document = json.loads(run(*arguments, "--json").stdout)
    assert [match["caption"] for match in document["captions"]] == ["red", "a blue video", "green"]
    assert run(*arguments, "--csv").stdout.startswith("rank,score,caption,start_seconds,end_seconds\n1,1.")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--path", "more/*"], ["blue.mp4"]),
        (["--folder", "more"], ["blue.mp4"]),
        (["--max-duration", "1.5"], ["blue.mp4"]),
        (["--min-duration", "3"], ["green then blue.mkv"]),
        (["--newer", "2100-01-01T12:30:00"], []),
        (["--older", "2100-01-01", "--path", "*.mkv"], ["green then blue.mkv"]),
    ],
)
def test_filters(search: list[str], filters: list[str], found: list[str]) -> None:
    done = run(*search, "--query", "red", *filters)
    assert done.returncode == 0
    assert [Path(line.split("\t")[3]).name for line in done.stdout.splitlines()] == found
    assert ("note: none of the 4 indexed clips passes the filters\n" in done.stderr) == (not found)


def test_no_update_reads_no_video(search: list[str], library: Path) -> None:
    new = write_video(library / "new.mp4", "red", seconds_each=1.0)
    try:
        document = json.loads(run(*search, "--query", "red", "--no-update", "--json").stdout)
    finally:
        new.unlink()
    assert document["update"] is None
    assert document["index"]["clips"] == 4


def test_info(bundle: Path) -> None:
    text = run("info", bundle).stdout
    assert text.startswith(f"name    tiny\nnote    {NOTICE}\npath    {bundle}\n")
    assert "\nlevel   event: 1 video and 1 text tokens, rate 0.5\n" in text
    assert "\nmetric  text_to_video_r1 1\n" in text
    document = json.loads(run("info", bundle, "--json").stdout)
    assert document["path"] == str(bundle)
    assert document["provenance"]["metrics"] == {"text_to_video_r1": 1.0}


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


def test_nothing_to_search_is_told_before_anything_is_indexed(library: Path, bundle: Path, tmp_path: Path) -> None:
    index_file = tmp_path / "i.sqlite"
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", index_file)
    for wrong in (("--query", ""), ("--like", tmp_path / "none.mp4")):
        assert run(*arguments, *wrong).returncode == 1
        assert not index_file.exists()
    done = run(*arguments, "--query", "red", "--no-update")
    assert done.returncode == 1
    assert f"error: nothing of {library} is indexed: leave out --no-update\n" in done.stderr


def test_an_index_that_another_process_makes_anew_while_it_is_used_is_told(
    library: Path, bundle: Path, tmp_path: Path
) -> None:
    model = HBI.load(bundle, device="cpu")
    options = FolderOptions(location=tmp_path / "i.sqlite", workers=1)

    def stop(progress: IndexProgress) -> None:
        if progress.clips:
            raise KeyboardInterrupt

    def begin_anew() -> None:
        with (
            Index.open(library, model, location=options.location, rebuild=True) as index,
            pytest.raises(KeyboardInterrupt),
        ):
            index.update(workers=0, progress=stop)

    def use(meanwhile: Callable[[], None]) -> int:
        with updated_index(model, library, options) as (index, _):
            meanwhile()
            return index.store.num_clips()

    assert use(lambda: None) == 4
    with pytest.raises(IndexStoreError, match=r"another process made the index .* anew meanwhile: .*; try again"):
        use(begin_anew)
    assert use(lambda: None) == 4


def test_a_folder_without_videos(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = run("index", tmp_path, "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    assert done.returncode == 1
    assert f"error: no videos in {tmp_path}" in done.stderr


IN_TURN = """
import json, sys
from hbi_infer.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code, file=sys.stderr)
"""
"""Runs commands one after the other, which takes less time than a process for each."""


def errors_in_turn(commands: list[list[str | Path]]) -> list[str]:
    """The error of each command, as an ordinary user; every one must end with one line and exit code 1."""
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run(
        [*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", IN_TURN, given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert (lines[1::2], done.stdout) == (["exit code 1"] * len(commands), ""), done.stderr
    return lines[::2]


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
    assert bundle.startswith(f"error: {name} cannot be read as a bundle ([Errno 36] File name too long: ")


def test_a_folder_that_cannot_be_read_is_told_and_costs_no_other(bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "red.mp4", "red", seconds_each=1.0)
    (videos / "closed").mkdir(mode=0)
    arguments = ("retrieve", "--videos", videos, "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    done = run(*arguments, "--query", "red", prefix=WITHOUT_ROOTS_RIGHTS)
    assert [line.split("\t")[3] for line in done.stdout.splitlines()] == [f"{videos}/red.mp4"]
    assert done.stderr.splitlines()[1:] == ["warning: closed cannot be searched: cannot be read: Permission denied"]
    assert done.returncode == 3


def test_an_index_of_another_model(search: list[str], tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other")
    text = (other / "bundle.json").read_text().replace('"name": "tiny"', '"name": "other"')
    (other / "bundle.json").write_text(text)
    done = run(*search, "--bundle", str(other), "--query", "red")
    assert done.returncode == 1
    assert "--rebuild" in done.stderr.splitlines()[-1]


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
        (["qa", "--video", ".", "-q", "what?", "--no-update", "--rebuild"], "--no-update nothing: give one"),
        (["retreive"], "Did you mean 'retrieve'?"),
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


def on_terminal(*arguments: str | Path) -> tuple[int, str]:
    """Run `hbi-infer` on a terminal of its own; its exit code and what was shown, without colours."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(COMMAND[0], [*COMMAND, *map(str, arguments)], {**os.environ, "COLUMNS": "160", "TERM": "xterm"})
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")


def test_a_table_and_a_progress_bar_on_a_terminal(library: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", tmp_path / "i.sqlite", "-q", "red")
    status, shown = on_terminal(*arguments)
    assert status == 3
    assert "4/4 videos, " in shown
    assert "clips/s, " in shown
    assert re.search(r"^ *rank +score +file +clip +best frames", shown, re.MULTILINE)
    assert re.search(r"^ *1 +1\.\d{3} +.*red\.mp4 +0:00\.0-0:02\.0 +0:0\d\.\d, ", shown, re.MULTILINE)
    status, shown = on_terminal(*arguments)
    assert status == 0
    assert "videos, " not in shown, "nothing to index, no bar"


def test_ctrl_c_keeps_what_was_indexed(bundle: Path, tmp_path: Path) -> None:
    """Interrupted like a terminal does it, all processes at once, as soon as the first videos are stored."""
    folder, index_file = tmp_path / "videos", tmp_path / "i.sqlite"
    first = write_video(folder / "0000.mp4", "red", seconds_each=2.0)
    for number in range(1, 4000):
        os.link(first, folder / f"{number:04}.mp4")
    process = subprocess.Popen(
        [*COMMAND, "index", str(folder), "--bundle", str(bundle), "--index", str(index_file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    search = ("retrieve", "--videos", folder, "--bundle", bundle, "--index", index_file, "--no-update", "--json")
    deadline = time.monotonic() + 30
    stored = 0
    while not stored and time.monotonic() < deadline:
        time.sleep(0.1)
        done = run(*search, "--query", "red")
        stored = json.loads(done.stdout)["index"]["clips"] if done.returncode == 0 else 0
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines() == [
        f"note: {NOTICE}",
        "error: interrupted: what was indexed or written before is kept",
    ]
    assert 1 <= stored <= json.loads(run(*search, "--query", "red").stdout)["index"]["clips"] < 1000
