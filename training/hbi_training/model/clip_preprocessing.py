"""How a CLIP's own configuration makes its pictures, for models that are trained from it.

`hbi_infer.convert.preprocessing` reads the configuration. The graphs of trained models normalise as CLIP's own, so that
a CLIP with other colours is refused here.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils.hub import cached_file

from hbi_infer.convert.preprocessing import CLIP_PICTURES, IMAGE_MEAN, IMAGE_STD, Preprocessing, preprocessing_of
from hbi_infer.errors import BundleError, TrainingError
from hbi_infer.options import FrameSampling


def clip_preprocessing(source: str, image_size: int) -> Preprocessing:
    """Reads how a CLIP's pictures are made; one that does not say it has the published way.

    Args:
        source: A local folder, or a name on the hub.
        image_size: H = W that the model takes, in pixels.

    Raises:
        TrainingError: A configuration asks for what is not done here, or two contradict each other.
    """

    def read(file: str) -> Any:
        path = cached_file(source, file, _raise_exceptions_for_missing_entries=False)
        return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))

    try:
        found = preprocessing_of(source, read, image_size, CLIP_PICTURES)
    except BundleError as error:
        raise TrainingError(str(error)) from error
    given, own = (found.mean, found.deviation), (IMAGE_MEAN, IMAGE_STD)
    if not np.allclose(given, own, atol=1e-3):
        raise TrainingError(
            f"cannot prepare pictures as the CLIP model '{source}' wants: its pictures have mean "
            f"{list(found.mean)} and deviation {list(found.deviation)}, those of CLIP {IMAGE_MEAN}, {IMAGE_STD}"
        )
    return found


def require_pictures(own: Preprocessing, sampling: FrameSampling) -> None:
    """Refuses a sampling that makes other pictures; one that rounds otherwise differs by a pixel, and may.

    Raises:
        TrainingError: The sampling makes other pictures; the message says what to write.
    """
    for name in ("fit", "resize_to", "interpolation"):
        if getattr(sampling, name) != asdict(own)[name]:
            raise TrainingError(
                f"sampling has {name} {getattr(sampling, name)}, and the CLIP model's own pictures have {name} "
                f"{asdict(own)[name]}; write {name} into the recipe's sampling"
            )
