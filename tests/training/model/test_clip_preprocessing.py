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

from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling
from hbi_infer.video.scaling import FrameScaler
from hbi_training.model.clip_preprocessing import IMAGE_MEAN, IMAGE_STD, ClipPreprocessing, clip_preprocessing

SIZE = 64


def saved(folder: Path, file: str = "preprocessor_config.json", **said: Any) -> str:
    (folder / file).write_text(json.dumps(said))
    return str(folder)


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 with soft blobs of colour, whose every pixel's shift would be seen."""
    blobs = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))


SUPPORTED: dict[str, tuple[dict[str, Any], ClipPreprocessing]] = {
    "crop": (
        {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}},
        ClipPreprocessing(rounding="transformers"),
    ),
    "crop by old keys": ({"size": SIZE, "crop_size": SIZE}, ClipPreprocessing(rounding="transformers")),
    "crop of a larger picture": (
        {"size": {"shortest_edge": 80}, "crop_size": SIZE},
        ClipPreprocessing(resize_to=80, rounding="transformers"),
    ),
    "crop of a smaller picture": (
        {"size": {"shortest_edge": 51}, "crop_size": SIZE},
        ClipPreprocessing(resize_to=51, rounding="transformers"),
    ),
    "squash": (
        {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False},
        ClipPreprocessing(fit="squash", rounding="transformers"),
    ),
    "squash by old keys": (
        {"size": [SIZE, SIZE], "do_center_crop": False, "crop_size": 99},
        ClipPreprocessing(fit="squash", rounding="transformers"),
    ),
    "squash, then crop": (
        {"size": {"height": 81, "width": 81}, "crop_size": SIZE},
        ClipPreprocessing(fit="squash", resize_to=81, rounding="transformers"),
    ),
    "pad": (
        {"size": {"max_height": SIZE, "max_width": SIZE}, "crop_size": SIZE},
        ClipPreprocessing(fit="pad", rounding="transformers"),
    ),
    "pad more": (
        {"size": {"max_height": 49, "max_width": 49}, "crop_size": SIZE},
        ClipPreprocessing(fit="pad", resize_to=49, rounding="transformers"),
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize(("width", "height"), [(384, 128), (128, 384), (200, 112), (113, 97), (64, 64), (40, 31)])
def test_pictures_are_those_of_transformers(tmp_path: Path, name: str, width: int, height: int) -> None:
    said, expected = SUPPORTED[name]
    found = clip_preprocessing(saved(tmp_path, **said), SIZE)
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
    assert clip_preprocessing(saved(tmp_path, **said), SIZE) == ClipPreprocessing(rounding="transformers")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"resample": 2}, "resample is 2; only 3 or 'bicubic' is supported"),
        ({"do_resize": False}, "do_resize is False; only True is supported"),
        ({"do_rescale": False}, "do_rescale is False; only True is supported"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784313725490196; only 1/255 is supported"),
        ({"do_normalize": False}, "do_normalize is False; only True is supported"),
        ({"do_pad": True}, "do_pad is True, a step that is not known here"),
        ({"do_thumbnail": True}, "do_thumbnail is True, a step that is not known here"),
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type is 'SiglipImageProcessor'; only '"),
        ({"auto_map": {"AutoImageProcessor": "a.B"}}, "auto_map is {'AutoImageProcessor': 'a.B'}; only its absence is"),
        ({"use_square_size": True}, "use_square_size is True; only False is supported"),
        ({"image_std": [0.5, 0.5, 0.5]}, "its pictures have mean"),
        ({"image_mean": 0.5}, "its pictures have mean 0.5"),
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
    with pytest.raises(TrainingError, match=expected) as raised:
        clip_preprocessing(source, SIZE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ClipPreprocessing()),
        ({"mean": IMAGE_MEAN, "std": IMAGE_STD}, ClipPreprocessing()),
        ({"resize_mode": "shortest", "interpolation": "bicubic", "size": SIZE, "mode": "RGB"}, ClipPreprocessing()),
        ({"resize_mode": "squash", "size": [SIZE, SIZE], "fill_color": 0}, ClipPreprocessing(fit="squash")),
        ({"resize_mode": "longest"}, ClipPreprocessing(fit="pad")),
    ],
)
def test_open_clip(tmp_path: Path, said: dict[str, Any], expected: ClipPreprocessing) -> None:
    source = saved(tmp_path, "open_clip_config.json", model_cfg={"embed_dim": 16}, preprocess_cfg=said)
    assert clip_preprocessing(source, SIZE) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"interpolation": "bilinear"}, "interpolation is 'bilinear'; only 'bicubic' is supported"),
        ({"interpolation": "random"}, "interpolation is 'random'; only 'bicubic' is supported"),
        ({"resize_mode": "longest", "fill_color": 127}, "fill_color is 127; only 0 is supported"),
        ({"resize_mode": "fit"}, "resize_mode is 'fit'; only 'shortest' or 'squash' or 'longest' is supported"),
        ({"size": 224}, "size is 224, and the model takes 64 x 64 pixels"),
        ({"mean": [0.5, 0.5, 0.5]}, "its pictures have mean [0.5, 0.5, 0.5]"),
    ],
)
def test_what_open_clip_wants_and_is_not_supported(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        clip_preprocessing(saved(tmp_path, "open_clip_config.json", preprocess_cfg=said), SIZE)


def test_the_file_that_transformers_reads_counts(tmp_path: Path) -> None:
    squash = {"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False}
    saved(tmp_path, "preprocessor_config.json", resample=2)
    source = saved(tmp_path, "processor_config.json", image_processor=squash, processor_class="CLIPProcessor")
    assert clip_preprocessing(source, SIZE).fit == "squash"
    saved(tmp_path, "processor_config.json", processor_class="CLIPProcessor")
    with pytest.raises(TrainingError, match="resample is 2"):
        clip_preprocessing(source, SIZE)


def test_two_configurations_must_agree(tmp_path: Path) -> None:
    saved(tmp_path, size={"shortest_edge": SIZE}, crop_size=SIZE)
    source = saved(tmp_path, "open_clip_config.json", preprocess_cfg={"resize_mode": "shortest"})
    assert clip_preprocessing(source, SIZE) == ClipPreprocessing(rounding="transformers")
    saved(tmp_path, "open_clip_config.json", preprocess_cfg={"resize_mode": "squash"})
    with pytest.raises(
        TrainingError, match=r"contradict each other \({'fit': 'crop'.* and {'fit': 'squash'.*remove the"
    ):
        clip_preprocessing(source, SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", r"preprocessor_config.json holds \[1\] where an object belongs"), ("{", "Expecting property name")],
)
def test_a_file_of_something_else(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        clip_preprocessing(str(tmp_path), SIZE)


def test_a_sampling_of_other_pictures_is_refused() -> None:
    squash = ClipPreprocessing(fit="squash", rounding="transformers")
    squash.require(FrameSampling(fit="squash"))
    with pytest.raises(TrainingError, match="sampling has fit crop, and the CLIP model's own pictures have fit squash"):
        squash.require(FrameSampling())
    with pytest.raises(TrainingError, match=r"sampling has resize_to None, .* have resize_to 80; write resize_to into"):
        ClipPreprocessing(resize_to=80).require(FrameSampling())
