"""Real clips and texts for the ranges of int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbi_export.precision.calibration import read_calibration
from hbi_export.precision.quantize import quantized_bundle
from hbi_infer.errors import ExportError
from hbi_infer.model.bundle import Bundle
from tests.builders import video_files
from tests.builders.tiny_bundle import write_video


def test_a_part_of_a_video_is_what_the_data_set_means_by_it(embedded: Bundle, tmp_path: Path) -> None:
    video_files.write_video(tmp_path / "a.mp4", num_frames=100)
    lines = [{"video": "a.mp4", "captions": ["a"], **part} for part in ({}, {"start_seconds": 2}, {"end_seconds": 1})]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (batch,) = read_calibration(tmp_path, embedded).clips
    numbers = [
        [video_files.read_number(frame) for frame in clip[real]]
        for clip, real in zip(batch["frames"], batch["frame_mask"], strict=True)
    ]
    assert sorted((clip[0], clip[-1] >= 75) for clip in numbers) == [(0, False), (0, True), (50, True)]


def test_without_texts_the_text_encoder_stays(embedded: Bundle, tmp_path: Path) -> None:
    write_video(tmp_path / "red.mp4", "red")
    made = quantized_bundle(embedded, "int8", read_calibration(tmp_path, embedded))
    assert set(made.unchanged) == made.graphs.keys() - {"video_encoder"}
    assert made.manifest.graphs["text_encoder"] == embedded.manifest.graphs["text_encoder"]


def test_nothing_to_calibrate_with(embedded: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 needs real videos to measure ranges on: give --calibrate"):
        quantized_bundle(embedded, "int8")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(ExportError, match="holds no video that can be decoded; --calibrate takes a folder of videos"):
        read_calibration(tmp_path, embedded)
