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


def test_an_origin_is_written_where_there_is_one() -> None:
    usual = tiny_manifest()
    assert not {"origin", "revision"} & usual.to_document()["provenance"].keys()
    provenance = dataclasses.replace(usual.provenance, origin="owner/name", revision="0123abc")
    converted = dataclasses.replace(usual, provenance=provenance)
    assert converted.to_document()["provenance"].items() >= {"origin": "owner/name", "revision": "0123abc"}.items()
    assert BundleManifest.from_json(converted.to_json()) == converted


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def tensor(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["graphs"]["text_encoder"]["outputs"][0]
    return found


def compare_from_the_text_alone(document: dict[str, Any]) -> None:
    document["directions"] = "text_to_video"
    document["graphs"]["similarity"] = document["graphs"]["text_encoder"] | {"file": "similarity.onnx"}


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
        (lambda d: d.update(min_match=1.5), "min_match is 1.5; it must be at most 1"),
        (lambda d: d.update(batch_clips=0), "batch_clips is 0; it must be at least 1"),
        (lambda d: d.update(directions="video"), "directions is 'video'; it must be 'both' or 'text_to_video'"),
        (
            compare_from_the_text_alone,
            "the graph similarity compares both directions, and directions is text_to_video",
        ),
        (lambda d: d.update(levels={}), "levels is {}"),
        (lambda d: d.update(levels=[]), "levels are []; there must be at least one"),
        (lambda d: d.update(levels=d["levels"][:1] * 2), "levels are ['entity', 'entity']"),
        (lambda d: d["levels"][1].update(rate="1"), "levels[1].rate is '1'; it must be float"),
        (lambda d: d.update(sampling=[1]), "sampling is [1]; it must be an object"),
        (lambda d: d["sampling"].update(max_frames=0), "sampling: max_frames is 0"),
        (lambda d: d["graphs"]["video_encoder"]["inputs"][0].update(shape=[1.5]), "inputs[0].shape[0] is 1.5"),
        (lambda d: d["graphs"].pop("video_encoder"), "task retrieve needs the graph frame_encoder; there are only"),
        (lambda d: d["graphs"]["text_encoder"].update(file="video_encoder.onnx"), "need a file of their own"),
        (lambda d: d.update(width=10**30), "width is 1000000000000000000000000000000...; it must be an int of less"),
        (lambda d: d.update(width=-3), "width is -3; it must be at least 1"),
        (lambda d: d.update(width=3.0), "width is 3.0; it must be int"),
        (lambda d: d.update(width=2**40), "width is 1099511627776; it must be at most 65,536"),
        (lambda d: d.update(max_words=10**9), "max_words is 1000000000; it must be at most 65,536"),
        (lambda d: d.update(logit_scale=10**400), "logit_scale is 1000"),
        (lambda d: d.update(logit_scale=float("inf")), "logit_scale is inf; it must be float"),
        (lambda d: d.update(logit_scale=-1), "logit_scale is -1.0; it must be at least"),
        (lambda d: d.update(logit_scale=False), "logit_scale is False; it must be float"),
        (lambda d: d["sampling"].update(max_frames=10**9), "sampling.max_frames is 1000000000; it must be at most"),
        (lambda d: d["sampling"].update(max_frames=True), "sampling.max_frames is True; it must be int"),
        (lambda d: d["sampling"].update(clip_seconds=1e-300), "sampling.clip_seconds is 1e-300; it must be at least"),
        (lambda d: d["sampling"].update(frames_per_second=1e300), "sampling.frames_per_second is 1e+300"),
        (lambda d: d["sampling"].update(max_frames=9_999, image_size=9_999), "the frames of a clip take 2,999"),
        (lambda d: d["levels"][0].update(rate=-1), "levels[0].rate is -1.0; it must be at least 0"),
        (lambda d: [level.update(rate=0) for level in d["levels"]], "the rates of all levels are 0"),
        (lambda d: d["levels"][0].update(video_tokens=0), "levels[0].video_tokens is 0; it must be at least 1"),
        (lambda d: d["levels"][0].update(name="a\x1b[31m"), "levels.0.name is 'a\\x1b[31m'; it must be a text without"),
        (lambda d: d.update(notice="a\ud800"), "notice is 'a\\ud800'; it must be a text without control characters"),
        (lambda d: d.update(notice="a\nb"), "notice is 'a\\nb'; it must be a text without control characters"),
        (lambda d: d.update({"a\nb": {"c": "\0"}}), "a key of the document is 'a\\nb'"),
        (lambda d: tensor(d).update(dtype="a" * 1000), "graphs.text_encoder has 'entity_tokens (B, T, 3) aaa"),
        (lambda d: d.update({"a\0": 1}), "a key of the document is 'a\\x00'"),
        (lambda d: d["provenance"].update(seed=2**63), "provenance.seed is 9223372036854775808...; it must be an int"),
        (lambda d: d["provenance"]["metrics"].update(a=float("nan")), "provenance.metrics.a is nan; it must be float"),
        (lambda d: d["provenance"]["metrics"].update(a=deep(900)), "is nested deeper than 20 levels"),
        (lambda d: d["graphs"]["text_encoder"].update(opset=-1), "graphs.text_encoder has 2 inputs and opset -1"),
        (lambda d: d["graphs"]["text_encoder"].update(inputs=[]), "graphs.text_encoder has 0 inputs"),
        (lambda d: tensor(d).update(dtype="object"), "types are bool, uint8, int8"),
        (
            lambda d: tensor(d).update(dtype="int64"),
            "has the output entity_tokens (B, T, 3) int64; it must have 3 axes",
        ),
        (lambda d: tensor(d).update(shape=["B", "T", 0]), "sizes at least 1"),
        (lambda d: tensor(d).update(shape=["B", "T", 2**31]), "sizes at least 1"),
        (lambda d: tensor(d).update(shape=["B", "T", 4]), "it must have 3 axes, the last of 3"),
        (lambda d: tensor(d).update(shape=["B", 3]), "it must have 3 axes, the last of 3"),
        (lambda d: tensor(d).update(shape=["B", True, 3]), "shape[1] is True"),
        (lambda d: tensor(d).update(name=""), "graphs.text_encoder has the name ''; a name has 1 to 200 letters"),
        (lambda d: d.update(name="a" * 1000, width="b" * 100_000), "width is 'bbb"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, edit: Callable[..., object], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(edited(folder, edit))
    assert message in str(caught.value)
    assert str(folder / "bundle.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


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


@pytest.mark.parametrize("value", ["1e400", "-1e400", "NaN", "1" * 5000])
def test_numbers_that_json_cannot_hold(folder: Path, value: str) -> None:
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace('"logit_scale": 10.0', f'"logit_scale": {value}'))
    with pytest.raises(BundleError, match=r"logit_scale is (-?inf|nan); it must be float|not JSON"):
        Bundle.load(folder)


def test_a_key_that_is_there_twice(folder: Path) -> None:
    text = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(text.replace('"width": 3', '"width": 3, "width": 4'))
    with pytest.raises(BundleError, match="an object has the key 'width' twice"):
        Bundle.load(folder)


def test_encoders_of_two_models_are_refused() -> None:
    manifest = tiny_manifest()
    older = manifest.graphs["video_encoder"]
    features = TensorSpec("features", "float32", ("num_frames", 7))
    frame_encoder = dataclasses.replace(
        older,
        file="frames.onnx",
        inputs=(TensorSpec("frames", "uint8", ("num_frames", 16, 16, 3)),),
        outputs=(features,),
    )

    def with_clips_of(taken: TensorSpec) -> BundleManifest:
        clip_encoder = dataclasses.replace(older, file="clips.onnx", inputs=(taken, older.inputs[1]))
        graphs = {
            "frame_encoder": frame_encoder,
            "clip_encoder": clip_encoder,
            "text_encoder": manifest.graphs["text_encoder"],
        }
        return dataclasses.replace(manifest, graphs=graphs)

    assert with_clips_of(TensorSpec("features", "float32", ("batch", 4, 7))).clip_graph == "clip_encoder"
    for taken in (
        TensorSpec("features", "float32", ("batch", 4, 8)),
        TensorSpec("features", "float16", ("batch", 4, 7)),
    ):
        with pytest.raises(
            BundleError, match=r"frame_encoder gives features .* and clip_encoder takes features .*: they"
        ):
            with_clips_of(taken)
