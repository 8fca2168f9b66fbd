"""A CLIP's own pictures: made as its image processor makes them, or refused by the key that is not supported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hbi_infer.convert.preprocessing import (
    CLIP_PICTURES,
    IMAGE_MEAN,
    IMAGE_STD,
    SIGLIP_PICTURES,
    Preprocessing,
    read_preprocessing,
)
from hbi_infer.errors import BundleError
from hbi_infer.options import FrameSampling
from hbi_infer.video.scaling import FrameScaler

SIZE = 64


def saved(folder: Path, file: str = "preprocessor_config.json", **said: Any) -> str:
    (folder / file).write_text(json.dumps(said))
    return str(folder)


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 with soft blobs of colour, whose every pixel's shift would be seen."""
    blobs = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))


SUPPORTED: dict[str, tuple[dict[str, Any], Preprocessing]] = {
    "crop": (
        {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}},
        Preprocessing(rounding="transformers"),
    ),
    "crop by old keys": ({"size": SIZE, "crop_size": SIZE}, Preprocessing(rounding="transformers")),
    "crop of a larger picture": (
        {"size": {"shortest_edge": 80}, "crop_size": SIZE},
        Preprocessing(resize_to=80, rounding="transformers"),
    ),
    "crop of a smaller picture": (
        {"size": {"shortest_edge": 51}, "crop_size": SIZE},
        Preprocessing(resize_to=51, rounding="transformers"),
    ),
    "squash": (
        {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False},
        Preprocessing(fit="squash", rounding="transformers"),
    ),
    "squash by old keys": (
        {"size": [SIZE, SIZE], "do_center_crop": False, "crop_size": 99},
        Preprocessing(fit="squash", rounding="transformers"),
    ),
    "squash, then crop": (
        {"size": {"height": 81, "width": 81}, "crop_size": SIZE},
        Preprocessing(fit="squash", resize_to=81, rounding="transformers"),
    ),
    "pad": (
        {"size": {"max_height": SIZE, "max_width": SIZE}, "crop_size": SIZE},
        Preprocessing(fit="pad", rounding="transformers"),
    ),
    "pad more": (
        {"size": {"max_height": 49, "max_width": 49}, "crop_size": SIZE},
        Preprocessing(fit="pad", resize_to=49, rounding="transformers"),
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize(("width", "height"), [(384, 128), (128, 384), (200, 112), (113, 97), (64, 64), (40, 31)])
def test_pictures_are_those_of_transformers(tmp_path: Path, name: str, width: int, height: int) -> None:
    said, expected = SUPPORTED[name]
    found = read_preprocessing(saved(tmp_path, **said), SIZE, CLIP_PICTURES)
    assert found == expected
    image = smooth(width, height)
    processor = CLIPImageProcessorPil(**said)
    pixels = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    theirs = (pixels * IMAGE_STD + IMAGE_MEAN) * 255
    scaler = FrameScaler(SIZE, fit=found.fit, resize_to=found.resize_to, rounding=found.rounding)
    ours = scaler.square(av.VideoFrame.from_ndarray(image, format="rgb24"))
    difference = np.abs(ours - theirs)
    assert difference.max() < 7.5
    assert difference.mean() < 1
    is_black = (theirs < 0.5).all(axis=-1)
    np.testing.assert_array_equal((ours == 0).all(axis=-1), is_black)


NORMAL = {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD}


@pytest.mark.parametrize(
    "said",
    [
        {
            "do_resize": True,
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            **NORMAL,
        },
        {"do_convert_rgb": False, "image_processor_type": "CLIPImageProcessorFast", "do_pad": None, "pad_size": None},
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": None, "crop_size": None, "do_center_crop": None},
        {
            "image_processor_type": "CLIPImageProcessor",
            "data_format": "channels_first",
            "processor_class": "CLIPProcessor",
        },
    ],
)
def test_other_words_for_the_same(tmp_path: Path, said: dict[str, Any]) -> None:
    assert read_preprocessing(saved(tmp_path, **said), SIZE, CLIP_PICTURES) == Preprocessing(rounding="transformers")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"resample": 1}, "resample is 1; only 2 or 3 or 'bilinear' or 'bicubic' is supported"),
        ({"do_resize": False}, "do_resize is False; only True is supported"),
        ({"do_rescale": False}, "do_rescale is False; only True is supported"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784313725490196; only 1/255 is supported"),
        ({"do_normalize": False}, "do_normalize is False; only True is supported"),
        ({"do_pad": True}, "do_pad is True, a step that is not known here"),
        ({"do_thumbnail": True}, "do_thumbnail is True, a step that is not known here"),
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type is 'SiglipImageProcessor'; only '"),
        ({"auto_map": {"AutoImageProcessor": "a.B"}}, "auto_map is {'AutoImageProcessor': 'a.B'}; only its absence is"),
        ({"use_square_size": True}, "use_square_size is True; only False is supported"),
        ({"image_std": [0.5, 0.5, 0]}, "its pictures have the deviation [0.5, 0.5, 0]; it must be three numbers"),
        ({"image_mean": "0.5"}, "its pictures have the mean '0.5'; it must be three numbers up to 1"),
        ({"size": {"height": 64, "width": 96}}, "size is {'height': 64, 'width': 96}; only shortest_edge, equal"),
        ({"size": {"longest_edge": 64}}, "size is {'longest_edge': 64}; only shortest_edge"),
        ({"size": {"shortest_edge": 64, "longest_edge": 90}}, "size is {'shortest_edge': 64, 'longest_edge': 90}"),
        ({"size": "64"}, "size is '64'; only shortest_edge"),
        ({"size": {"shortest_edge": 0}}, "size is {'shortest_edge': 0}; only"),
        ({"crop_size": 224}, "crop_size is 224, and the model takes 64 x 64 pixels"),
        ({"crop_size": {"height": 64, "width": 80}}, "crop_size is {'height': 64, 'width': 80}, and the model"),
        ({"do_center_crop": False}, "do_center_crop is False and size is None; without a crop only height and width"),
        (
            {"do_center_crop": False, "size": {"shortest_edge": 64}},
            "do_center_crop is False and size is {'shortest_edge': 64}; without a crop only height and width of 64",
        ),
        ({"do_center_crop": False, "size": {"height": 80, "width": 80}}, "do_center_crop is False and size is {'he"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_key(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    source = saved(tmp_path, **said)
    expected = re.escape(f"cannot prepare pictures as the CLIP model '{source}' wants: {message}")
    with pytest.raises(BundleError, match=expected) as raised:
        read_preprocessing(source, SIZE, CLIP_PICTURES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Preprocessing()),
        ({"mean": IMAGE_MEAN, "std": IMAGE_STD}, Preprocessing()),
        ({"resize_mode": "shortest", "interpolation": "bicubic", "size": SIZE, "mode": "RGB"}, Preprocessing()),
        ({"resize_mode": "squash", "size": [SIZE, SIZE], "fill_color": 0}, Preprocessing(fit="squash")),
        ({"resize_mode": "longest"}, Preprocessing(fit="pad")),
    ],
)
def test_open_clip(tmp_path: Path, said: dict[str, Any], expected: Preprocessing) -> None:
    source = saved(tmp_path, "open_clip_config.json", model_cfg={"embed_dim": 16}, preprocess_cfg=said)
    assert read_preprocessing(source, SIZE, CLIP_PICTURES) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"interpolation": "random"}, "interpolation is 'random'; only 'bicubic' or 'bilinear' is supported"),
        ({"resize_mode": "longest", "fill_color": 127}, "fill_color is 127; only 0 is supported"),
        ({"resize_mode": "fit"}, "resize_mode is 'fit'; only 'shortest' or 'squash' or 'longest' is supported"),
        ({"size": 224}, "size is 224, and the model takes 64 x 64 pixels"),
        ({"mean": [0.5, 0.5]}, "its pictures have the mean [0.5, 0.5]; it must be three numbers"),
    ],
)
def test_what_open_clip_wants_and_is_not_supported(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        read_preprocessing(saved(tmp_path, "open_clip_config.json", preprocess_cfg=said), SIZE, CLIP_PICTURES)


def test_the_file_that_transformers_reads_counts(tmp_path: Path) -> None:
    squash = {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False}
    saved(tmp_path, "preprocessor_config.json", resample=1)
    source = saved(tmp_path, "processor_config.json", image_processor=squash, processor_class="CLIPProcessor")
    assert read_preprocessing(source, SIZE, CLIP_PICTURES).fit == "squash"
    saved(tmp_path, "processor_config.json", processor_class="CLIPProcessor")
    with pytest.raises(BundleError, match="resample is 1"):
        read_preprocessing(source, SIZE, CLIP_PICTURES)


def test_two_configurations_must_agree(tmp_path: Path) -> None:
    saved(tmp_path, size={"shortest_edge": SIZE}, crop_size=SIZE)
    source = saved(tmp_path, "open_clip_config.json", preprocess_cfg={"resize_mode": "shortest"})
    assert read_preprocessing(source, SIZE, CLIP_PICTURES) == Preprocessing(rounding="transformers")
    saved(tmp_path, "open_clip_config.json", preprocess_cfg={"resize_mode": "squash"})
    with pytest.raises(BundleError, match=r"contradict each other \(crop, bicubic.* and squash, bicubic.*remove the"):
        read_preprocessing(source, SIZE, CLIP_PICTURES)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", r"preprocessor_config.json holds \[1\] where an object belongs"), ("{", "Expecting property name")],
)
def test_a_file_of_something_else(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(BundleError, match=message):
        read_preprocessing(str(tmp_path), SIZE, CLIP_PICTURES)


BILINEAR_SQUASH = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize(("width", "height"), [(384, 128), (113, 97), (64, 64), (40, 31)])
def test_pictures_are_those_of_siglip(tmp_path: Path, resample: int, width: int, height: int) -> None:
    said = {**BILINEAR_SQUASH, "resample": resample}
    found = read_preprocessing(saved(tmp_path, **said), SIZE, SIGLIP_PICTURES)
    assert (found.fit, found.mean, found.deviation) == ("squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    image = smooth(width, height)
    wanted = {2: Image.Resampling.BILINEAR, 3: Image.Resampling.BICUBIC}
    theirs = {kind: np.asarray(Image.fromarray(image).resize((SIZE, SIZE), wanted[kind])) for kind in wanted}
    scaler = FrameScaler.of(found.of(FrameSampling(), SIZE))
    ours = scaler.square(av.VideoFrame.from_ndarray(image, format="rgb24")).astype(float)
    difference = np.abs(ours - theirs[resample])
    assert difference.max() < 7.5
    assert difference.mean() < 1
    if (width, height) != (SIZE, SIZE):
        assert difference.mean() < np.abs(ours - theirs[5 - resample]).mean()


def test_a_silent_siglip_squashes() -> None:
    found = read_preprocessing("nowhere", SIZE, SIGLIP_PICTURES)
    assert found == SIGLIP_PICTURES.silent


def test_a_siglip_with_clips_processor_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, image_processor_type="CLIPImageProcessor")
    with pytest.raises(
        BundleError, match=r"the SigLIP model .* image_processor_type is 'CLIPImageProcessor'; only 'Si"
    ):
        read_preprocessing(folder, SIZE, SIGLIP_PICTURES)
