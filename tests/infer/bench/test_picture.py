"""A report as a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hbi_infer.bench.picture import picture
from tests.builders.bench_report import small_report


def test_bars_are_as_long_as_the_times_are() -> None:
    image = Image.open(io.BytesIO(picture(small_report()))).convert("RGB")
    pixels = np.asarray(image)
    blue, orange = ((pixels == colour).all(-1).any(0).sum() for colour in ((0, 114, 178), (230, 159, 0)))
    assert blue == pytest.approx(2 * orange, abs=2)
