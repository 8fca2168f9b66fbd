"""How a model's own configuration makes its pictures, in the words of `FrameSampling`.

The configuration is that of an image processor of `transformers`, or open_clip_config.json. What cannot be done exactly
is refused by its key: a model that sees other pictures than in its training finds less, and nothing would tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hbi_infer.convert.settings import read_settings
from hbi_infer.errors import BundleError
from hbi_infer.options import Fit, FrameSampling, Interpolation, Rounding

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

_CLIP_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
_SIGLIP_PROCESSORS = ("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil")
_INTERPOLATIONS: Mapping[Any, Interpolation] = {
    2: "bilinear",
    3: "bicubic",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}
# The values that are done here, of keys that may be missing.
_TRANSFORMERS_VALUES: Mapping[str, tuple[Any, ...]] = {
    "do_resize": (True,),
    "resample": tuple(_INTERPOLATIONS),
    "do_rescale": (True,),
    "do_normalize": (True,),
    "use_square_size": (False,),
    "auto_map": (),
}
_OPEN_CLIP_VALUES: Mapping[str, tuple[Any, ...]] = {
    "mode": ("RGB",),
    "interpolation": ("bicubic", "bilinear"),
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
class Preprocessing:
    """How a model's pictures are made; `FrameSampling` describes all but the last two attributes.

    Attributes:
        mean: Mean of each colour, from 0 to 1, that is subtracted.
        deviation: Deviation of each colour that is divided by.
    """

    fit: Fit = FrameSampling.fit
    resize_to: int | None = FrameSampling.resize_to
    rounding: Rounding = FrameSampling.rounding
    interpolation: Interpolation = FrameSampling.interpolation
    mean: tuple[float, float, float] = IMAGE_MEAN
    deviation: tuple[float, float, float] = IMAGE_STD

    def of(self, sampling: FrameSampling, image_size: int) -> FrameSampling:
        """Returns a sampling of frames with these pictures, of H = W pixels."""
        return replace(
            sampling,
            image_size=image_size,
            fit=self.fit,
            resize_to=self.resize_to,
            rounding=self.rounding,
            interpolation=self.interpolation,
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of models, and what it does where its configuration is silent.

    Attributes:
        name: Name for messages.
        silent: Pictures of a model without any such configuration.
        processors: Image processors of `transformers` that are known.
        crops: Whether the image processor cuts out the centre unless told otherwise.
    """

    name: str
    silent: Preprocessing
    processors: tuple[str, ...]
    crops: bool


CLIP_PICTURES = Family(name="CLIP", silent=Preprocessing(), processors=_CLIP_PROCESSORS, crops=True)
SIGLIP_PICTURES = Family(
    name="SigLIP",
    silent=Preprocessing(fit="squash", rounding="transformers", mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)),
    processors=_SIGLIP_PROCESSORS,
    crops=False,
)

ReadJson = Callable[[str], Any]
"""Returns the content of a JSON file of the model by its name; None where there is none."""


def read_preprocessing(folder: Path | str, image_size: int, family: Family) -> Preprocessing:
    """Reads how the pictures of the model in a folder are made; see `preprocessing_of`."""
    return preprocessing_of(str(folder), partial(read_settings, folder), image_size, family)


def preprocessing_of(source: str, read: ReadJson, image_size: int, family: Family) -> Preprocessing:
    """Finds how a model's pictures are made; one that does not say it has the published way of its family.

    Args:
        source: Name of the model, for messages.
        read: Reads a file of the model.
        image_size: H = W that the model takes, in pixels.
        family: The kind of model.

    Raises:
        BundleError: A configuration asks for what is not done here, or two contradict each other.
    """
    try:
        ways = []
        nested = _section(read, "processor_config.json", "image_processor")
        if said := nested or _section(read, "preprocessor_config.json"):
            ways.append(_of_transformers(said, image_size, family))
        if said := _section(read, "open_clip_config.json", "preprocess_cfg"):
            ways.append(_of_open_clip(said, image_size))
        if len({_told(way) for way in ways}) > 1:
            raise _OtherPicturesError(
                f"its image processor and its open_clip_config.json contradict each other ({_told(ways[0])} and "
                f"{_told(ways[1])}); remove the wrong one from a local copy"
            )
    except (_OtherPicturesError, ValueError, TypeError) as error:
        raise BundleError(f"cannot prepare pictures as the {family.name} model '{source}' wants: {error}") from error
    return ways[0] if ways else family.silent


class _OtherPicturesError(Exception):
    """A configuration asks for what is not done here."""


def _told(way: Preprocessing) -> str:
    """Returns what two configurations must agree in, with the precision that they have."""
    colours = ", ".join(f"{value:.3f}" for value in (*way.mean, *way.deviation))
    side = f" to {way.resize_to}" if way.resize_to else ""
    return f"{way.fit}{side}, {way.interpolation}, mean and deviation {colours}"


def _section(read: ReadJson, file: str, key: str | None = None) -> dict[str, Any]:
    """Returns the content of a model's JSON file, or what stands there under a key; empty where there is none."""
    content = read(file)
    if content is None:
        return {}
    if key is not None and isinstance(content, dict):
        content = content.get(key) or {}
    if not isinstance(content, dict):
        raise _OtherPicturesError(f"{file} holds {content!r:.100} where an object belongs")
    return content


def _of_transformers(given: Mapping[str, Any], image_size: int, family: Family) -> Preprocessing:
    """Reads the configuration of an image processor of `transformers`."""
    said = {key: value for key, value in given.items() if value is not None}
    processors = dict.fromkeys(("image_processor_type", "feature_extractor_type"), family.processors)
    _require_values(said, {**processors, **_TRANSFORMERS_VALUES})
    for key, value in said.items():
        if key.startswith("do_") and key not in (*_TRANSFORMERS_VALUES, "do_center_crop", "do_convert_rgb") and value:
            raise _OtherPicturesError(f"{key} is {value!r}, a step that is not known here")
    factor = said.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-3:
        raise _OtherPicturesError(f"rescale_factor is {factor!r}; only 1/255 is supported")
    silent = family.silent
    usual = {"height": image_size, "width": image_size} if silent.fit == "squash" else image_size
    fit, side = _fit_of_size(said.get("size", usual), is_square=bool(said.get("default_to_square")))
    crop = said.get("crop_size", image_size)
    if not said.get("do_center_crop", family.crops):
        if (fit, side) != ("squash", image_size):
            raise _OtherPicturesError(
                f"do_center_crop is False and size is {said.get('size')!r}; without a crop only height and width of "
                f"{image_size}, as the model takes, are supported"
            )
    elif crop not in (image_size, [image_size] * 2, {"height": image_size, "width": image_size}):
        raise _OtherPicturesError(f"crop_size is {crop!r}, and the model takes {image_size} x {image_size} pixels")
    mean, deviation = _normalisation(said.get("image_mean", silent.mean), said.get("image_std", silent.deviation))
    return Preprocessing(
        fit=fit,
        resize_to=None if side == image_size else side,
        rounding="transformers",
        interpolation=_INTERPOLATIONS[said.get("resample", "bicubic")],
        mean=mean,
        deviation=deviation,
    )


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


def _of_open_clip(said: Mapping[str, Any], image_size: int) -> Preprocessing:
    """Reads the key `preprocess_cfg` of open_clip_config.json."""
    _require_values(said, _OPEN_CLIP_VALUES)
    size = said.get("size", image_size)
    if size not in (image_size, [image_size] * 2, [3, image_size, image_size]):
        raise _OtherPicturesError(f"size is {size!r}, and the model takes {image_size} x {image_size} pixels")
    mean, deviation = _normalisation(said.get("mean", IMAGE_MEAN), said.get("std", IMAGE_STD))
    return Preprocessing(
        fit=_FIT_OF_RESIZE_MODE[said.get("resize_mode", "shortest")],
        interpolation=said.get("interpolation", "bicubic"),
        mean=mean,
        deviation=deviation,
    )


def _require_values(said: Mapping[str, Any], values: Mapping[str, tuple[Any, ...]]) -> None:
    for key, supported in values.items():
        if key in said and said[key] not in supported:
            names = " or ".join(map(repr, supported)) or "its absence"
            raise _OtherPicturesError(f"{key} is {said[key]!r}; only {names} is supported")


def _normalisation(mean: Any, deviation: Any) -> list[tuple[float, float, float]]:
    """Checks the mean and the deviation of three colours; one number stands for three."""
    found = []
    for name, given, least in (("mean", mean, 0.0), ("deviation", deviation, 1e-3)):
        values = [given] * 3 if isinstance(given, float | int) else given
        is_three = isinstance(values, list | tuple) and len(values) == 3
        if not is_three or any(type(value) not in (int, float) or not least <= value <= 1 for value in values):
            raise _OtherPicturesError(f"its pictures have the {name} {given!r:.100}; it must be three numbers up to 1")
        found.append((float(values[0]), float(values[1]), float(values[2])))
    return found
