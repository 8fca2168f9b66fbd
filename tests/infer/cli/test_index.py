"""The command `hbi-infer index`: its report, its failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from tests.builders.command_line import COMMAND, IN_TURN, WITHOUT_ROOTS_RIGHTS, run, run_python
from tests.builders.tiny_bundle import NOTICE, write_tiny_bundle, write_video
from tests.paths import ROOT


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
        "moved": 0,
        "removed": 0,
        "unchanged": 4,
        "partial": [],
        "failed": [],
        "left_out": {},
        "clips": 0,
        "clips_per_second": 0.0,
        **dict.fromkeys(("decode_seconds", "wait_seconds", "encode_seconds", "store_seconds"), 0.0),
        "total_seconds": 0,
    }
    retried = json.loads(run(*arguments, "--json", "--retry-failed").stdout)
    assert [failure["path"] for failure in retried["update"]["failed"]] == ["damaged.mp4"]


def test_a_renamed_file_is_told_as_moved(bundle: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "red.mp4", "red", seconds_each=1.0)
    arguments = ("index", tmp_path / "videos", "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    run(*arguments)
    video.rename(video.with_name("blue.mp4"))
    done = run(*arguments)
    assert done.stdout.startswith("0 added, 0 changed, 1 moved, 0 removed, 0 unchanged; 0 clips in ")


def test_verify_mends_what_is_damaged_from_the_videos(bundle: Path, tmp_path: Path) -> None:
    videos, index_file = tmp_path / "videos", tmp_path / "i.sqlite"
    for name in ("red", "green", "blue"):
        write_video(videos / f"{name}.mp4", name, seconds_each=1.0)
    arguments = ("index", videos, "--bundle", bundle, "--index", index_file)
    assert run(*arguments).returncode == 0
    with closing(sqlite3.connect(index_file, isolation_level=None)) as connection:
        sql = "UPDATE tokens SET record = zeroblob(length(record)) WHERE clip_id = (SELECT first_clip FROM videos "
        connection.executemany(sql + "WHERE path = ?)", [("red.mp4",), ("blue.mp4",)])
    (videos / "blue.mp4").unlink()
    done = run(*arguments, "--verify", "--json")
    gone, mended = [{"path": path, "reason": "has changed in the index"} for path in ("blue.mp4", "red.mp4")]
    document = json.loads(done.stdout)
    assert document["verified"] == {"videos": 1, "clips": 1, "damaged": [gone, mended], "fault": ""}
    assert (document["update"]["added"], document["index"]["clips"], done.returncode) == (1, 2, 3)
    assert done.stderr.splitlines()[1:] == [
        "warning: blue.mp4 has changed in the index: it is indexed anew",
        "warning: red.mp4 has changed in the index: it is indexed anew",
        "note: 1 videos with 1 clips are as they were indexed",
        "warning: blue.mp4 cannot be searched: has changed in the index",
    ]
    index_file.write_bytes(b"")
    search = ("retrieve", "--videos", videos, "--bundle", bundle, "--index", index_file, "--query", "red")
    told = run(*search, "--no-update")
    assert told.returncode == 1
    assert f"error: the index {index_file} is damaged (it has 0 bytes): make it anew" in told.stderr
    done = run(*arguments, "--verify")
    assert done.returncode == 0
    assert "warning: the index is damaged (it has 0 bytes): what cannot be read is indexed anew" in done.stderr
    assert done.stdout.endswith(f"2 clips in the index {index_file}\n")


def test_commands_that_only_read_need_to_write_nothing(library: Path, tmp_path: Path) -> None:
    """With the embedded model, which does every task."""
    folder = tmp_path / "index"
    index_file = folder / "i.sqlite"
    folder.mkdir()
    assert run("index", library, "--index", index_file).returncode == 3
    (folder / "i.sqlite.lock").unlink()
    index_file.chmod(0o444)
    folder.chmod(0o555)
    use = ["--index", str(index_file)]
    red = str(library / "red.mp4")
    commands = [
        ["retrieve", "--videos", str(library), "--query", "red", "--no-update", *use],
        ["retrieve", "--videos", str(library), "--like", red, "--no-update", *use],
        ["qa", "--video", str(library), "-q", "what colour?", "--no-update", *use],
        ["caption", str(library), "--no-update", *use],
        ["explain", "--video", red, "--query", "red", "--videos", str(library), *use],
    ]
    done = run_python(IN_TURN, json.dumps(commands), prefix=WITHOUT_ROOTS_RIGHTS)
    folder.chmod(0o755)
    told = [line for line in done.stderr.splitlines() if not line.startswith(("note: ", "warning: damaged.mp4 "))]
    assert [line for line in told if not line.startswith("exit code")] == []
    assert [line.split()[-1] for line in told] == ["0", "0", "3", "3", "0"]
    assert list(folder.iterdir()) == [index_file]


def test_a_folder_without_videos(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    done = run("index", tmp_path, "--bundle", bundle, "--index", tmp_path / "i.sqlite")
    assert done.returncode == 1
    assert f"error: no videos in {tmp_path}" in done.stderr


def test_exclude_and_all_files_are_kept_by_every_command(bundle: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "red.mp4", "red", seconds_each=1.0).rename(videos / "red")
    write_video(videos / "drafts" / "green.mp4", "green", seconds_each=1.0)
    write_video(tmp_path / "drive" / "blue.mp4", "blue", seconds_each=1.0)
    (videos / "films").symlink_to(tmp_path / "drive")
    (videos / "b.mxf").touch()
    options = ("--bundle", bundle, "--index", tmp_path / "i.sqlite")
    done = run("index", videos, *options, "--exclude", "drafts", "--exclude", "*.gif", "--all-files")
    assert done.stdout.startswith("2 added, ")
    assert done.stderr.splitlines()[1:] == [
        "note: left out: 1 excluded, 1 of a format that is not read (b.mxf); --verbose lists them"
    ]
    done = run("retrieve", "--videos", videos, *options, "-q", "green", "--min-match", "0", "--csv")
    assert {line.split(",")[3] for line in done.stdout.splitlines()[1:]} == {
        f"{videos}/red",
        f"{videos}/films/blue.mp4",
    }
    done = run("retrieve", "--videos", videos, *options, "-q", "green", "--exclude", "", "--no-all-files", "--json")
    document = json.loads(done.stdout)
    assert (document["update"]["added"], document["update"]["removed"]) == (1, 1)
    assert document["update"]["left_out"] == {
        "format_not_read": {"count": 1, "paths": ["b.mxf"]},
        "other_suffix": {"count": 1, "paths": ["red"]},
    }


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
