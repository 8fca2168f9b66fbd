"""What commands share: hints about failures, and an index that another process makes anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from hbi_infer.api import HBI, Index
from hbi_infer.cli.inputs import MOST_LISTED, FolderOptions, end_with, index_document, read_lines, updated_index
from hbi_infer.errors import IndexStoreError
from hbi_infer.index.store import VideoFault
from hbi_infer.index.update import IndexProgress
from tests.builders.command_line import run
from tests.builders.tiny_bundle import write_video
from tests.builders.unfamiliar import write_bundle_without_red


def test_a_failure_that_may_pass_says_how_to_try_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end:
        end_with([VideoFault("a.mp4", "was slow", "too_slow"), VideoFault("b.mp4", "is empty", "damaged")], "searched")
    assert end.value.exit_code == 3
    slow, empty = capsys.readouterr().err.splitlines()
    assert slow.startswith("warning: a.mp4 cannot be searched: was slow; ")
    assert slow.endswith("; try again with hbi-infer index --retry-failed")
    assert empty == "warning: b.mp4 cannot be searched: is empty"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("one\u2028still one\ntwo\u0085still two\r\nthree\x0cstill\x1cthree\n", 3),
        ("one\rstill one", 1),
        ("\ufeffone\n \n\ntwo", 2),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path: Path, content: str, lines: int) -> None:
    (tmp_path / "q.txt").write_bytes(content.encode())
    assert len(found := read_lines(tmp_path / "q.txt")) == lines
    assert found[0] in content
    assert not found[-1].endswith("\r")


def test_what_is_left_out_is_counted_and_listed(
    library: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(library, folder)
    (folder / "a.mxf").touch()
    for number in range(MOST_LISTED + 5):
        (folder / f"{number:04}.txt").touch()
    model = HBI.load(bundle, device="cpu")
    options = FolderOptions(tmp_path / "i.sqlite", 0, exclude=["more"])
    with updated_index(model, folder, options) as (index, report):
        document = index_document(index, report)["update"]["left_out"]
    others = document.pop("other_suffix")
    assert (others["count"], len(others["paths"])) == (MOST_LISTED + 5, MOST_LISTED)
    assert document == {
        "excluded": {"count": 1, "paths": ["more"]},
        "format_not_read": {"count": 1, "paths": ["a.mxf"]},
    }
    assert (
        "note: left out: 1 excluded, 1 of a format that is not read (a.mxf), 1005 without a video's suffix; --verbose "
        "lists them\n"
    ) in capsys.readouterr().err
    with updated_index(model, folder, replace(options, exclude=None, verbose=True)):
        pass
    shown = capsys.readouterr().err.splitlines()
    assert "note: left out: more, excluded" in shown
    assert "note: left out: a.mxf, of a format that is not read" in shown
    assert "note: left out: 5 more, without a video's suffix" in shown
    (folder / "a.mxf").unlink()
    with updated_index(model, folder, replace(options, exclude=[""])) as (_, report):
        assert report is not None
        assert report.added == 1
    assert capsys.readouterr().err == "", "files that nobody takes for videos are no news"


def test_what_cannot_be_asked_of_a_folder(tmp_path: Path) -> None:
    for options in ({"exclude": ["a"]}, {"all_files": False}):
        with pytest.raises(typer.BadParameter, match="say what to index and --no-update indexes nothing"):
            FolderOptions(no_update=True, **options)
        with pytest.raises(typer.BadParameter, match="--exclude and --all-files are for a folder of videos"):
            FolderOptions(**options).checked(tmp_path / "a.mp4")
    assert FolderOptions(verbose=True).checked(tmp_path / "a.mp4").verbose


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


def test_commands_say_of_which_clips_the_model_knows_nothing(tmp_path: Path) -> None:
    bundle = write_bundle_without_red(tmp_path / "bundle", "qa", "caption")
    videos = tmp_path / "videos"
    red, blue = write_video(videos / "red.mp4", "red"), write_video(videos / "blue.mp4", "blue")
    shared = ("--bundle", bundle, "--index", tmp_path / "i.sqlite")
    told = "unlike all that the model was trained on: do not rely on the "
    done = run("retrieve", "--videos", videos, "-q", "red", "--min-match", "0", *shared)
    assert f"note: 1 of 2 clips are {told}scores\n" in done.stderr
    done = run("qa", "--video", videos, "-q", "what colour?", "-q", "is it red?", *shared)
    assert f"note: 1 of 2 clips are {told}answers\n" in done.stderr
    done = run("caption", videos, *shared)
    assert f"note: 1 of 2 clips are {told}captions\n" in done.stderr
    assert f"note: the clip is {told}captions\n" in run("caption", red, "--bundle", bundle).stderr
    assert told not in run("caption", blue, "--bundle", bundle).stderr
