"""The commands of `hbi-export`, in processes of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from hbi_export.cli import app
from hbi_export.options import MAX_DROP, BuildOptions, CheckData, TritonOptions
from hbi_export.tensorrt.build import batch_range
from hbi_infer import HBI
from hbi_infer.model.bundle import Bundle
from hbi_infer.options import FrameSampling
from hbi_training.weights.checkpoint import Checkpoint, save_checkpoint
from tests.builders.exports import hbi_export, with_parts
from tests.builders.tiny_bundle import write_video


def test_the_clip_command_makes_a_bundle_that_searches(clip_folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "red.mp4", "red")
    made = hbi_export("clip", clip_folder, "-o", tmp_path / "bundle", "--frames-per-second", "2", "--weights", "int8")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{tmp_path / 'bundle'}: ")
    hbi = HBI.load(tmp_path / "bundle", device="cpu")
    assert hbi.bundle.manifest.name == "tiny-clip"
    assert hbi.bundle.manifest.sampling.frames_per_second == 2
    matches = hbi.index(videos, location=tmp_path / "index").search("anything")
    assert [Path(match.path).name for match in matches] == ["red.mp4"]


def test_a_bundle_may_have_longer_clips_and_no_reranker(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint = with_parts(checkpoint, reconstruction_layers=1)
    save_checkpoint(checkpoint, tmp_path / "model")
    made = hbi_export("onnx", tmp_path / "model", "-o", tmp_path / "bundle", "--clip-seconds", "10", "--no-reranker")
    assert made.returncode == 0, made.stderr
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert manifest.sampling == replace(checkpoint.model.config.sampling, clip_seconds=10)
    assert "reranker" not in manifest.graphs
    assert "rerank" not in manifest.tasks


def test_defaults_are_those_of_the_options() -> None:
    """No number is written twice: the command line takes its defaults from the options."""
    defaults = {
        command: {option.name: option.default for option in get_command(app).commands[command].params}
        for command in ("trt", "triton", "check", "clip")
    }
    built, served, sampling = BuildOptions(), TritonOptions(), FrameSampling()
    assert batch_range(defaults["trt"]["batch"]) == built.batch
    assert (defaults["trt"]["flavor"], defaults["trt"]["precision"]) == (built.flavor, built.precision)
    assert (defaults["triton"]["max_batch"], defaults["triton"]["instances"]) == (served.max_batch, served.instances)
    assert defaults["triton"]["queue_delay"] == served.max_queue_delay_microseconds
    assert defaults["check"]["max_drop"] == MAX_DROP
    assert defaults["check"]["split"] == CheckData(Path()).split
    assert defaults["clip"]["max_frames"] == sampling.max_frames


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "/nowhere", "-o", "b"], "/nowhere has no config.json"),
        (["clip", "/nowhere", "-o", "b"], "there is no folder /nowhere, and it is no name on the hub"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = hbi_export(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0
