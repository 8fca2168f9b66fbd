"""How a CLIP's own configuration makes its pictures, in the words of `FrameSampling`.

The configuration is that of the image processor of `transformers`, or open_clip_config.json. What cannot be done
exactly is refused by its key: a model that sees other pictures than in its training finds less, and nothing would tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils.hub import cached_file

from hbi_infer.errors import TrainingError
from hbi_infer.options import Fit, FrameSampling, Rounding

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
# The values that are done here, of keys that may be missing.
_TRANSFORMERS_VALUES: Mapping[str, tuple[Any, ...]] = {
    "image_processor_type": _PROCESSORS,
    "feature_extractor_type": _PROCESSORS,
    "do_resize": (True,),
    "resample": (3, "bicubic"),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "use_square_size": (False,),
    "auto_map": (),
}
_OPEN_CLIP_VALUES: Mapping[str, tuple[Any, ...]] = {
    "mode": ("RGB",),
    "interpolation": ("bicubic",),
    "fill_color": (0,),
    "resize_mode": ("shortest", "squash", "longest"),
}
_FIT_OF_SIZE: Mapping[frozenset[str], Fit] = {
    frozenset({"shortest_edge"}): "crop",
    frozenset({"height", "width"}): "squash",
    frozenset({"max_height", "max_width"}): "pad",
}
_FIT_OF_RESIZE_MODE: Mapping[str, Fit] = {"shortest": "crop", "squash": "squash", "longest": "pad"}


@dataclass(frozen=True, kw_only=True)
class ClipPreprocessing:
    """How a CLIP's pictures are made square; `FrameSampling` describes the attributes."""

    fit: Fit = FrameSampling.fit
    resize_to: int | None = FrameSampling.resize_to
    rounding: Rounding = FrameSampling.rounding

    def require(self, sampling: FrameSampling) -> None:
        """Refuses a sampling that makes other pictures; one that rounds otherwise differs by a pixel, and may.

        Raises:
            TrainingError: The sampling makes other pictures; the message says what to write.
        """
        for name in ("fit", "resize_to"):
            if getattr(sampling, name) != getattr(self, name):
                raise TrainingError(
                    f"sampling has {name} {getattr(sampling, name)}, and the CLIP model's own pictures have {name} "
                    f"{getattr(self, name)}; write {name} into the recipe's sampling"
                )


def clip_preprocessing(source: str, image_size: int) -> ClipPreprocessing:
    """Reads how a CLIP's pictures are made; one that does not say it has the published way.

    Args:
        source: A local folder, or a name on the hub.
        image_size: H = W that the model takes, in pixels.

    Raises:
        TrainingError: A configuration asks for what is not done here, or two contradict each other.
    """
    try:
        ways = []
        nested = _section(source, "processor_config.json", "image_processor")
        if said := nested or _section(source, "preprocessor_config.json"):
            ways.append(_of_transformers(said, image_size))
        if said := _section(source, "open_clip_config.json", "preprocess_cfg"):
            ways.append(_of_open_clip(said, image_size))
        if len({(way.fit, way.resize_to) for way in ways}) > 1:
            raise _OtherPicturesError(
                f"its image processor and its open_clip_config.json contradict each other ({asdict(ways[0])} and "
                f"{asdict(ways[1])}); remove the wrong one from a local copy"
            )
    except (_OtherPicturesError, ValueError, TypeError) as error:
        raise TrainingError(f"cannot prepare pictures as the CLIP model '{source}' wants: {error}") from error
    return ways[0] if ways else ClipPreprocessing()


class _OtherPicturesError(Exception):
    """A configuration asks for what is not done here."""


def _section(source: str, file: str, key: str | None = None) -> dict[str, Any]:
    """Returns the content of a model's JSON file, or what stands there under a key; empty where there is none."""
    path = cached_file(source, file, _raise_exceptions_for_missing_entries=False)
    content = json.loads(Path(path).read_text(encoding="utf-8")) if path is not None else {}
    if key is not None and isinstance(content, dict):
        content = content.get(key) or {}
    if not isinstance(content, dict):
        raise _OtherPicturesError(f"{file} holds {content!r:.100} where an object belongs")
    return content


def _of_transformers(given: Mapping[str, Any], image_size: int) -> ClipPreprocessing:
    """Reads the configuration of an image processor of `transformers`."""
    said = {key: value for key, value in given.items() if value is not None}
    _require_values(said, _TRANSFORMERS_VALUES)
    for key, value in said.items():
        if key.startswith("do_") and key not in (*_TRANSFORMERS_VALUES, "do_center_crop", "do_convert_rgb") and value:
            raise _OtherPicturesError(f"{key} is {value!r}, a step that is not known here")
    factor = said.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-3:
        raise _OtherPicturesError(f"rescale_factor is {factor!r}; only 1/255 is supported")
    _require_normalisation(said.get("image_mean", IMAGE_MEAN), said.get("image_std", IMAGE_STD))
    fit, side = _fit_of_size(said.get("size", image_size), is_square=bool(said.get("default_to_square")))
    crop = said.get("crop_size", image_size)
    if not said.get("do_center_crop", True):
        if (fit, side) != ("squash", image_size):
            raise _OtherPicturesError(
                f"do_center_crop is False and size is {said.get('size')!r}; without a crop only height and width of "
                f"{image_size}, as the model takes, are supported"
            )
    elif crop not in (image_size, [image_size] * 2, {"height": image_size, "width": image_size}):
        raise _OtherPicturesError(f"crop_size is {crop!r}, and the model takes {image_size} x {image_size} pixels")
    return ClipPreprocessing(fit=fit, resize_to=None if side == image_size else side, rounding="transformers")


def _fit_of_size(size: Any, *, is_square: bool) -> tuple[Fit, int]:
    """Returns what the key `size` of an image processor means, and the number of pixels of the scaled side."""
    if type(size) is int:
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    elif isinstance(size, list) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    keys = frozenset(size) if isinstance(size, dict) else frozenset()
    sides = list(size.values()) if isinstance(size, dict) else []
    if keys not in _FIT_OF_SIZE or any(type(side) is not int or side < 1 or side != sides[0] for side in sides):
        raise _OtherPicturesError(
            f"size is {size!r}; only shortest_edge, equal height and width, and equal max_height and max_width are "
            "supported"
        )
    return _FIT_OF_SIZE[keys], sides[0]


def _of_open_clip(said: Mapping[str, Any], image_size: int) -> ClipPreprocessing:
    """Reads the key `preprocess_cfg` of open_clip_config.json."""
    _require_values(said, _OPEN_CLIP_VALUES)
    _require_normalisation(said.get("mean", IMAGE_MEAN), said.get("std", IMAGE_STD))
    size = said.get("size", image_size)
    if size not in (image_size, [image_size] * 2, [3, image_size, image_size]):
        raise _OtherPicturesError(f"size is {size!r}, and the model takes {image_size} x {image_size} pixels")
    return ClipPreprocessing(fit=_FIT_OF_RESIZE_MODE[said.get("resize_mode", "shortest")])


def _require_values(said: Mapping[str, Any], values: Mapping[str, tuple[Any, ...]]) -> None:
    for key, supported in values.items():
        if key in said and said[key] not in supported:
            names = " or ".join(map(repr, supported)) or "its absence"
            raise _OtherPicturesError(f"{key} is {said[key]!r}; only {names} is supported")


def _require_normalisation(mean: Any, std: Any) -> None:
    """Checks that pictures are normalised as CLIP's, which is a part of the graphs."""
    same = np.shape(mean) == np.shape(std) == (3,) and np.allclose((mean, std), (IMAGE_MEAN, IMAGE_STD), atol=1e-3)
    if not same:
        raise _OtherPicturesError(
            f"its pictures have mean {mean} and deviation {std}, those of CLIP {IMAGE_MEAN}, {IMAGE_STD}"
        )
