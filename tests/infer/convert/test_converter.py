"""A folder of a model becomes a bundle that searches real videos, and PyTorch is not needed for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hbi_infer.api import HBI
from hbi_infer.convert import converter
from hbi_infer.convert.converter import check_kind, convert_model, plain_name, read_model
from hbi_infer.convert.preprocessing import IMAGE_MEAN, IMAGE_STD
from hbi_infer.convert.towers import num_weights
from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.token_model import TokenModel
from hbi_infer.options import FrameSampling
from hbi_infer.video import decode
from tests.builders.command_line import run_python
from tests.builders.saved_models import save, save_open_clip, save_siglip, tiny_clip, tiny_siglip
from tests.infer.convert.test_clip import error, features_agree, normalised
from tests.paths import ROOT

VIDEO = ROOT / "samples" / "two-big-red-rings-move-left.avi"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return save(tiny_clip(), tmp_path_factory.mktemp("models") / "clip", **size)


def test_the_manifest_says_where_the_model_comes_from(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    sampling = FrameSampling(frames_per_second=2, max_frames=4, clip_seconds=2)
    written = convert_model(
        folder,
        tmp_path / "bundle",
        name="owner/name",
        origin="owner/name",
        revision="0123abc",
        sampling=sampling,
        progress=lines.append,
    )
    bundle = Bundle.load(tmp_path / "bundle")
    bundle.verify()
    assert bundle.manifest == written
    assert (written.provenance.origin, written.provenance.revision) == ("owner/name", "0123abc")
    assert written.sampling == replace(sampling, image_size=32, rounding="transformers")
    assert [(level.name, level.video_tokens, level.text_tokens, level.rate) for level in written.levels] == [
        ("frame", 4, 1, 0.0),
        ("video", 1, 1, 1.0),
    ]
    assert (written.width, written.max_words, written.vocabulary_size, written.tasks) == (24, 16, 49408, ("retrieve",))
    assert lines == ["reading clip", "building the frame encoder", "building the text encoder", "writing bundle"]


def test_a_model_is_checked_before_its_weights_are_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    check_kind(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ["clip"]}')
    with pytest.raises(BundleError, match=r"a model of the kind \['clip'\]; clip and siglip can be converted"):
        check_kind(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"timm_model_name": "vit"}}}')
    with pytest.raises(BundleError, match="timm_model_name is 'vit', a setting that is not known here"):
        check_kind(tmp_path)


def test_the_same_files_give_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert_model(folder, tmp_path / name, name="tiny")
    assert Bundle.load(tmp_path / "one").sha256 == Bundle.load(tmp_path / "two").sha256


def test_a_converted_model_searches_real_videos(folder: Path, tmp_path: Path) -> None:
    convert_model(folder, tmp_path / "bundle", name="tiny")
    hbi = HBI.load(tmp_path / "bundle", device="cpu")
    with hbi.index(ROOT / "samples", location=tmp_path / "index") as index:
        matches = index.search("two red rings move left", top_k=3)
    assert [match.rank for match in matches] == [1, 2, 3]


def test_real_frames_through_the_whole_path(folder: Path, tmp_path: Path) -> None:
    """Frames as `transformers` prepares them from the same decoded video give nearly the same features."""
    written = convert_model(folder, tmp_path / "bundle", name="tiny")
    model = TokenModel.load(tmp_path / "bundle", device="cpu")
    clip = decode(VIDEO, written.sampling).clips[0]
    ours = model.encode_video(clip.frames[None], clip.mask[None])["frame"].tokens[0, clip.mask]
    large = decode(VIDEO, replace(written.sampling, image_size=120)).clips[0]  # decoded as it is, and not scaled
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pictures = [Image.fromarray(frame) for frame in large.frames[large.mask]]
    pixels = torch.from_numpy(np.stack(processor(pictures, return_tensors="np")["pixel_values"]))
    with torch.no_grad():
        theirs = tiny_clip().get_image_features(pixel_values=pixels).pooler_output.numpy()
    units = [part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (ours, theirs)]
    assert len(ours) >= 2
    assert (units[0] * units[1]).sum(-1).min() > 0.999  # scalers differ by a little; see test_preprocessing


@pytest.mark.parametrize("kind", ["clip", "open_clip", "siglip"])
def test_decoded_frames_have_the_features_that_transformers_computes(kind: str, tmp_path: Path) -> None:
    """The frames that a search decodes and scales, encoded by the bundle and by `transformers`."""
    model: Any = tiny_siglip() if kind == "siglip" else tiny_clip()
    save_as = {"clip": save, "open_clip": partial(save_open_clip, quick_gelu=True), "siglip": save_siglip}[kind]
    written = convert_model(save_as(model, tmp_path / "model"), tmp_path / "bundle", name="tiny")
    clip = decode(VIDEO, written.sampling).clips[0]
    assert clip.mask.sum() >= 4
    found = TokenModel.load(tmp_path / "bundle", device="cpu").encode_video(clip.frames[None], clip.mask[None])
    colours = ((0.5,) * 3, (0.5,) * 3) if kind == "siglip" else (IMAGE_MEAN, IMAGE_STD)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=normalised(clip.frames[None], *colours)).pooler_output
    assert error(found["frame"].tokens[0, clip.mask], expected[torch.from_numpy(clip.mask)]) <= 1e-5


def test_weights_may_be_stored_in_half(folder: Path, tmp_path: Path) -> None:
    for stored in ("float32", "float16"):
        convert_model(folder, tmp_path / stored, name="tiny", weights=stored)  # type: ignore[arg-type]
    sizes = {stored: sum(Bundle.load(tmp_path / stored).sizes_bytes().values()) for stored in ("float32", "float16")}
    assert sizes["float16"] < 0.7 * sizes["float32"]
    assert {spec.precision for spec in Bundle.load(tmp_path / "float16").manifest.graphs.values()} == {
        "float16 weights"
    }
    features_agree(tmp_path / "float16", tiny_clip(), tolerance=5e-3)


def test_a_model_that_no_graph_holds(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = num_weights(read_model(folder).text)
    room = 2**24
    monkeypatch.setattr(converter, "FILE_LIMIT_BYTES", room + 3 * count)
    written = convert_model(folder, tmp_path / "half", name="tiny")
    assert {spec.precision for spec in written.graphs.values()} == {"float16 weights"}
    monkeypatch.setattr(converter, "FILE_LIMIT_BYTES", room + count)
    with pytest.raises(BundleError, match=rf"an encoder of the model has {count:,} weights.*choose a smaller model"):
        convert_model(folder, tmp_path / "none", name="tiny")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        convert_model(folder, tmp_path, name="tiny")


def test_names_that_would_steer_a_terminal() -> None:
    assert plain_name("owner/name\x1b[2J\n") == "owner/name?[2J?"


def test_nothing_of_pytorch_is_imported(folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys
for name in ("torch", "transformers", "onnxruntime", "openvino"):
    sys.modules[name] = None
from hbi_infer.convert.converter import convert_model
convert_model({str(folder)!r}, {str(tmp_path / "bundle")!r}, name="tiny")
"""
    assert run_python(code).returncode == 0
    features_agree(tmp_path / "bundle", tiny_clip())
    assert "torch" in sys.modules, "it is installed here"
