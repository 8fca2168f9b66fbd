"""The command line, as real processes over really encoded videos."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from hbi_infer.cli.retrieve import _Found
from hbi_infer.model.bundle import write_bundle
from hbi_infer.tasks.search import Match
from tests.builders.command_line import on_terminal, run
from tests.builders.tiny_bundle import COLOURS, NOTICE, tiny_graphs, tiny_manifest, tokenizer_json, write_video


def test_retrieve_indexes_first_then_ranks(library: Path, bundle: Path, tmp_path: Path) -> None:
    """From nothing, with the index in the user's cache folder."""
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--query", "red", "--min-match", "0")
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
        "rank", "score", "path", "start_seconds", "end_seconds", "best_frame_seconds", "video_seconds", "copies",
        "match", "unfamiliar",
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
    assert ",".join(rows[0]) == "query,rank,score,file,start_seconds,end_seconds,best_frame_seconds,copies,match"


def test_queries_from_a_file(search: list[str], tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("﻿red\n\n  green \n", encoding="utf-8")
    lines = run(*search, "--queries", str(tmp_path / "queries.txt"), "-q", "blue", "-k", "1").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["blue", "red", "green"]


def test_like_a_video_of_the_folder_and_another_one(search: list[str], library: Path, tmp_path: Path) -> None:
    inside = run(*search, "--like", str(library / "more" / "blue.mp4"), "-k", "1").stdout
    assert inside.split("\t")[3] == f"{library}/green then blue.mkv"
    outside = write_video(tmp_path / "elsewhere.mp4", "red", seconds_each=1.0)
    assert run(*search, "--like", str(outside), "-k", "1").stdout.split("\t")[3] == f"{library}/red.mp4"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_like_a_picture(search: list[str], library: Path, tmp_path: Path, suffix: str) -> None:
    photo = tmp_path / f"photo.{suffix}"
    Image.new("RGB", (90, 60), COLOURS["blue"]).save(photo)
    answer = json.loads(run(*search, "--like", photo, "--json").stdout)["answers"][0]
    assert answer["like"] == str(photo)
    best = {(Path(result["path"]).name, result["start_seconds"]) for result in answer["results"][:2]}
    assert best == {("blue.mp4", 0.0), ("green then blue.mkv", 2.0)}


def test_a_picture_that_cannot_be_read_is_one_line(search: list[str], tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff" + b"no picture")
    done = run(*search, "--like", photo)
    assert (done.returncode, done.stdout) == (1, "")
    line = rf"^error: {photo} is no JPEG, PNG or WebP picture .*: give a JPEG, PNG or WebP picture, or a video$"
    assert re.search(line, done.stderr, re.M)


def test_queries_that_must_all_match(search: list[str]) -> None:
    queries = ("-q", "red", "-q", "a red video", "--all", "--all-clips")
    (answer,) = json.loads(run(*search, *queries, "--json").stdout)["answers"]
    assert (answer["queries"], answer["cut_at_words"]) == (["red", "a red video"], [None, None])
    assert len(answer["results"]) == 4
    assert Path(answer["results"][0]["path"]).name == "red.mp4"
    assert {line.split("\t")[0] for line in run(*search, *queries).stdout.splitlines()} == {"red and a red video"}


def test_a_query_without_something(search: list[str]) -> None:
    asked = ("-q", "green", "--without", "blue", "--all-clips")
    (answer,) = json.loads(run(*search, *asked, "--json").stdout)["answers"]
    assert (answer["query"], answer["without"]) == ("green", ["blue"])
    assert [Path(result["path"]).name for result in answer["results"][:2]] == ["green then blue.mkv", "red.mp4"]
    lines = run(*search, *asked).stdout.splitlines()
    assert {line.split("\t")[0] for line in lines} == {"green, without blue"}


def test_copies_are_folded_unless_all_are_wanted(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(folder / name, "red", seconds_each=1.0)
    write_video(folder / "blue.mp4", "blue", seconds_each=1.0)
    options = ("--index", tmp_path / "i.sqlite", "--min-match", "0", "--workers", "1")
    arguments = ("retrieve", "--videos", folder, "--bundle", bundle, "-q", "red", *options)
    lines = [line.split("\t") for line in run(*arguments).stdout.splitlines()]
    assert [(line[3].rpartition("/")[2] == "blue.mp4", line[7]) for line in lines] == [(False, "2"), (True, "0")]
    assert len(run(*arguments, "--no-dedupe").stdout.splitlines()) == 4
    assert run(*arguments, "--dedupe-near").stdout == run(*arguments, "--dedupe").stdout == run(*arguments).stdout
    first = json.loads(run(*arguments, "--json").stdout)["answers"][0]["results"][0]
    names = {Path(each["path"]).name for each in (first, *first["copies"])}
    assert names == {"a.mp4", "b.mp4", "c.mp4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all"], "give one of --query"),
        (["--like", "a.jpg", "--all"], "--all joins what --query"),
        (["--video", "a.mp4", "--captions", "b.txt", "--without", "red"], "--without goes with --query"),
        (["-q", "red", "--without", "blue", "--rerank", "2"], "--rerank scores one text"),
        (["-q", "red", "-q", "blue", "--all", "--rerank", "2"], "--rerank scores one text"),
        (["-q", "red", "--no-dedupe", "--dedupe-near"], "give one of them"),
    ],
)
def test_options_that_do_not_go_together(library: Path, arguments: list[str], message: str) -> None:
    videos = () if "--video" in arguments else ("--videos", library)
    done = run("retrieve", *videos, *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


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


def test_nothing_to_search_is_told_before_anything_is_indexed(library: Path, bundle: Path, tmp_path: Path) -> None:
    index_file = tmp_path / "i.sqlite"
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", index_file)
    for wrong in (("--query", ""), ("-q", "a", "--without", ""), ("--like", tmp_path / "none.mp4")):
        assert run(*arguments, *wrong).returncode == 1
        assert not index_file.exists()
    done = run(*arguments, "--query", "red", "--no-update")
    assert done.returncode == 1
    assert f"error: nothing of {library} is indexed: leave out --no-update\n" in done.stderr


def test_a_table_and_a_progress_bar_on_a_terminal(library: Path, bundle: Path, tmp_path: Path) -> None:
    options = ("--index", tmp_path / "i.sqlite", "--min-match", "0")
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "-q", "red", *options)
    status, shown = on_terminal(*arguments)
    assert status == 3
    assert "4/4 videos, " in shown
    assert "clips/s, " in shown
    assert re.search(r"^ *rank +score +match +file +clip +best frames", shown, re.MULTILINE)
    assert re.search(r"^ *1 +1\.\d{3} +[01]\.\d{3} +.*red\.mp4 +0:00\.0-0:02\.0 +0:0\d\.\d, ", shown, re.MULTILINE)
    status, shown = on_terminal(*arguments)
    assert status == 0
    assert "videos, " not in shown, "nothing to index, no bar"


def test_a_model_says_how_well_a_result_must_match(library: Path, tmp_path: Path) -> None:
    manifest = dataclasses.replace(tiny_manifest(), min_match=1.0)
    write_bundle(tmp_path / "strict", manifest, tiny_graphs(), tokenizer_json())
    arguments = ("retrieve", "--videos", library, "--bundle", tmp_path / "strict", "--index", tmp_path / "i.sqlite")
    done = run(*arguments, "-q", "blue", "--path", "red*", "--json")
    assert json.loads(done.stdout)["answers"][0]["left_out"] == 1
    assert "1 result matches less than 1 and stays out" in done.stderr
    done = run(*arguments, "-q", "blue", "--path", "red*", "--min-match", "0", "--json")
    assert json.loads(done.stdout)["answers"][0]["left_out"] == 0


def test_what_matches_no_better_than_any_text_is_left_out(
    library: Path, bundle: Path, indexed: Path, search: list[str]
) -> None:
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", indexed)
    every = json.loads(run(*search, "-q", "red", "--json").stdout)["answers"][0]
    assert (every["left_out"], [result["rank"] for result in every["results"]]) == (0, [1, 2, 3])
    matches = [result["match"] for result in every["results"]]
    assert matches == sorted(matches, reverse=True)
    assert 0 <= matches[-1] < matches[0] <= 1
    between = f"{(matches[0] + matches[1]) / 2:.9f}"
    done = run(*arguments, "-q", "red", "--min-match", between, "--json")
    (answer,) = json.loads(done.stdout)["answers"]
    assert (answer["left_out"], answer["results"]) == (2, every["results"][:1])
    told = r"^note: 2 results match less than 0\.\d+ and stay out; --min-match 0 shows everything$"
    assert re.search(told, done.stderr, re.MULTILINE)
    done = run(*arguments, "-q", "blue", "-q", "green", "--min-match", "1", "--path", "red*")
    assert (done.returncode, done.stdout) == (0, "")
    assert "note: nothing matches 2 of the queries: 2 results match less than 1 and stay out" in done.stderr
    done = run(*arguments, "-q", "blue", "--min-match", "1", "--path", "red*")
    assert "note: nothing matches 'blue': 1 result matches less than 1 and stays out; the nearest is " in done.stderr
    assert re.search(r"red\.mp4 at 0:00\.0, with 0\.\d\d; --min-match 0 shows everything$", done.stderr, re.MULTILINE)
    assert "passes the filters" not in done.stderr


def test_a_result_that_moves_up_is_not_among_those_that_are_left_out() -> None:
    """With --without the order is not that of the matches."""
    any_match = Match(
        rank=1, score=1, path=Path("a"), start_seconds=0, end_seconds=1, best_frame_seconds=(), video_seconds=1
    )
    matches = [
        dataclasses.replace(any_match, rank=rank, match=match)
        for rank, match in enumerate((0.2, 0.9, 0.3, None), start=1)
    ]
    found = _Found("red", {}, matches).without_poor_matches(0.5)
    assert [(each.rank, each.match) for each in found.matches] == [(1, 0.9), (2, None)]
    assert found.left_out == [matches[0], matches[2]]


def test_what_is_like_a_video_has_no_match_and_stays(library: Path, bundle: Path, indexed: Path) -> None:
    arguments = ("retrieve", "--videos", library, "--bundle", bundle, "--index", indexed)
    done = run(*arguments, "--like", library / "red.mp4", "--min-match", "1", "--json")
    (answer,) = json.loads(done.stdout)["answers"]
    assert [result["match"] for result in answer["results"]] == [None, None]
    assert answer["left_out"] == 0


def test_a_least_match_beyond_its_range_is_wrong_usage(search: list[str]) -> None:
    assert run(*search[:-1], "1.5", "-q", "red").returncode == 2
