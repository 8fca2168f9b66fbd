"""The manifest of a bundle: what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hbi_engines.engine import TensorSpec
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle, write_bundle
from hbi_infer.model.manifest import FORMAT_VERSION, BundleManifest
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json, write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return folder


def test_the_manifest_keeps_everything(folder: Path) -> None:
    written = write_bundle(folder, tiny_manifest(), tiny_graphs(), tokenizer_json())
    assert Bundle.load(folder).manifest == written
    assert BundleManifest.from_json(written.to_json()) == written
    unhashed = dataclasses.replace(written.graphs["video_encoder"], sha256="")
    assert unhashed == tiny_manifest().graphs["video_encoder"]


def test_how_pictures_are_made_square_is_written_where_it_is_not_the_usual_way() -> None:
    usual = tiny_manifest()
    assert usual.to_document()["sampling"].keys() == {"frames_per_second", "max_frames", "image_size", "clip_seconds"}
    squashed = dataclasses.replace(usual, sampling=dataclasses.replace(usual.sampling, fit="squash", resize_to=20))
    assert squashed.to_document()["sampling"].items() >= {"fit": "squash", "resize_to": 20}.items()
    assert BundleManifest.from_json(squashed.to_json()) == squashed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["sampling"].update(fit="stretch"), "sampling.fit is 'stretch'; it must be 'crop' or 'squash' or"),
        (lambda d: d["sampling"].update(resize_to=True), "sampling.resize_to is True"),
        (lambda d: d["sampling"].update(resize_to=-1), "sampling: resize_to is -1; it must be greater than 0"),
        (lambda d: d.update(format_version=FORMAT_VERSION + 1), "reads up to 1: pip install --upgrade hbi-infer"),
        (lambda d: d.update(format_version="1"), "format_version is '1'"),
        (lambda d: d.update(format_version=0), "format_version is 0"),
        (lambda d: d.pop("format_version"), "it has no format_version"),
        (lambda d: d.update(widht=3), "unknown key widht; the nearest known key is width"),
        (
            lambda d: d["sampling"].update(colour="red"),
            "unknown key sampling.colour; known are frames_per_second, max_fr",
        ),
        (lambda d: d.pop("levels"), "levels is missing"),
        (lambda d: d["graphs"]["video_encoder"].pop("sha256"), "graphs.video_encoder.sha256 is missing"),
        (lambda d: d.update(width="3"), "width is '3'; it must be int"),
        (lambda d: d.update(width=True), "width is True; it must be int"),
        (lambda d: d.update(width=0), "width is 0; it must be at least 1"),
        (lambda d: d.update(logit_scale=float("nan")), "logit_scale is nan; it must be float"),
        (lambda d: d.update(answers="yes"), "answers is 'yes'; it must be tuple"),
        (lambda d: d.update(padded_partner="none"), "padded_partner is 'none'; it must be 'ignore' or 'zero'"),
        (lambda d: d.update(levels={}), "levels is {}"),
        (lambda d: d.update(levels=[]), "levels are []; there must be at least one"),
        (lambda d: d.update(levels=d["levels"][:1] * 2), "levels are ['entity', 'entity']"),
        (lambda d: d["levels"][1].update(rate="1"), "levels[1].rate is '1'; it must be float"),
        (lambda d: d.update(sampling=[1]), "sampling is [1]; it must be an object"),
        (lambda d: d["sampling"].update(max_frames=0), "sampling: max_frames is 0"),
        (lambda d: d["graphs"]["video_encoder"]["inputs"][0].update(shape=[1.5]), "inputs[0].shape[0] is 1.5"),
        (lambda d: d["graphs"].pop("video_encoder"), "task retrieve needs the graph video_encoder; there are only"),
        (lambda d: d["graphs"]["text_encoder"].update(file="video_encoder.onnx"), "need a file of their own"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, edit: Callable[..., object], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(edited(folder, edit))
    assert message in str(caught.value)
    assert str(folder / "bundle.json") in str(caught.value)


def answering() -> BundleManifest:
    manifest = tiny_manifest()
    spec = manifest.graphs["text_encoder"]
    logits = (TensorSpec("logits", "float32", ("B", 2)),)
    graphs = {**manifest.graphs, "answerer": dataclasses.replace(spec, file="answerer.onnx", outputs=logits)}
    return dataclasses.replace(manifest, tasks=("retrieve", "qa"), answers=("yes", "no"), graphs=graphs)


def test_answers_are_kept_and_left_out_where_there_are_none() -> None:
    with_answers = answering()
    assert BundleManifest.from_json(with_answers.to_json()) == with_answers
    # So bundles of before are still what they were, to the byte of their manifest.
    assert "answers" not in tiny_manifest().to_document()
    assert BundleManifest.from_json(tiny_manifest().to_json()).answers == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ("yes", "no", "two")}, "3 different answers of 3, and the graph answerer gives 2 logits"),
        ({"answers": ("yes", "yes")}, "1 different answers of 2"),
        ({"answers": ()}, "0 different answers of 0, and the graph answerer gives 2 logits"),
        ({"graphs": tiny_manifest().graphs}, "the task qa needs the graph answerer"),
        ({"graphs": tiny_manifest().graphs, "tasks": ("retrieve",)}, "the graph answerer gives no logits"),
    ],
)
def test_each_logit_needs_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        dataclasses.replace(answering(), **change)


@pytest.mark.parametrize(
    "file", ["../secret", "/etc/passwd", "a/b.onnx", "a\\b.onnx", "C:x", "..", ".hidden", "", "a\0b"]
)
def test_file_names_stay_beside_the_manifest(folder: Path, file: str) -> None:
    with pytest.raises(BundleError, match=r"is not a plain name; files lie beside bundle\.json"):
        Bundle.load(edited(folder, lambda document: document["tokenizer"].update(file=file)))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_one(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json: not "):
        Bundle.load(folder)
