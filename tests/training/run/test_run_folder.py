"""A run's folder belongs to one training at a time; a process that ended, however it did, holds nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accelerate import PartialState

from hbi_infer.errors import TrainingError
from hbi_training.run.commands import run_training
from hbi_training.run.run_folder import LOCK, held
from tests.builders.tiny_training import tiny_recipe

HOLD = """
import sys
from hbi_engines.operating_system import lock
file = open(sys.argv[1], "ab")
lock(file)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was stopped."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step_3").mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    (folder / LOCK).touch()
    return folder


@contextmanager
def another_training(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder as a training does."""
    command = [sys.executable, "-c", HOLD, str(run / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_that_another_process_trains_in_is_refused_until_that_is_killed(run: Path, restart: bool) -> None:
    kept = names(run)
    with another_training(run) as other:
        message = rf"another process is training in {run}: .* give another --out"
        with pytest.raises(TrainingError, match=message), held(run, PartialState(cpu=True), restart=restart):
            pytest.fail("the folder is held twice")
        assert names(run) == kept
        other.kill()
        other.wait()
        with held(run, PartialState(cpu=True), restart=restart):
            assert names(run) == ([LOCK] if restart else kept)
    with held(run, PartialState(cpu=True)):  # the block before has freed it
        pass


def test_a_training_is_refused_before_it_decodes(run: Path) -> None:
    recipe = tiny_recipe(data={"format": "manifest", "folder": str(run / "no data"), "vocabulary": "corpus"})
    with another_training(run), pytest.raises(TrainingError, match="another process is training in"):
        run_training(recipe, run, task="retrieval", restart=False, workers=1, cpu=True)


def test_a_restart_deletes_links_and_not_what_they_lead_to(run: Path) -> None:
    (run / "videos").symlink_to(run.parent)
    with held(run, PartialState(cpu=True), restart=True):
        assert names(run) == [LOCK]
    assert run.is_dir()


def test_what_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (("file", "File exists"), ("file/run", "Not a directory")):
        message = rf"cannot use .*{path} for a run: {reason}; give another --out"
        with pytest.raises(TrainingError, match=message), held(tmp_path / path, PartialState(cpu=True)):
            pytest.fail("there is no such folder")
