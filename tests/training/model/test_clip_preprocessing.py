"""Pictures of a CLIP that a model is trained from; `tests/infer/convert` has what its configuration may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hbi_infer.convert.preprocessing import Preprocessing
from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling
from hbi_training.model.clip_preprocessing import clip_preprocessing, require_pictures


def saved(folder: Path, **said: Any) -> str:
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return str(folder)


def test_a_folders_configuration_is_read(tmp_path: Path) -> None:
    source = saved(tmp_path, size={"height": 64, "width": 64}, do_center_crop=False)
    assert clip_preprocessing(source, 64) == Preprocessing(fit="squash", rounding="transformers")


def test_what_is_not_supported_is_an_error_of_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="do_resize is False; only True is supported"):
        clip_preprocessing(saved(tmp_path, do_resize=False), 64)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(TrainingError, match="Expecting property name"):
        clip_preprocessing(str(tmp_path), 64)


def test_other_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"have mean .* and deviation \[0.5, 0.5, 0.5\], those of CLIP"):
        clip_preprocessing(saved(tmp_path, image_std=[0.5, 0.5, 0.5]), 64)


def test_a_sampling_of_other_pictures_is_refused() -> None:
    squash = Preprocessing(fit="squash", rounding="transformers")
    require_pictures(squash, FrameSampling(fit="squash"))
    with pytest.raises(TrainingError, match="sampling has fit crop, and the CLIP model's own pictures have fit squash"):
        require_pictures(squash, FrameSampling())
    with pytest.raises(TrainingError, match=r"sampling has resize_to None, .* have resize_to 80; write resize_to into"):
        require_pictures(Preprocessing(resize_to=80), FrameSampling())
