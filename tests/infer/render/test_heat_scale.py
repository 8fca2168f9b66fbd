"""Colours and numbers of a map."""

from __future__ import annotations

import numpy as np
import pytest

from hbi_infer.render.heat_scale import HeatScale


@pytest.mark.parametrize(
    ("limit", "value", "number"),
    [(0.6, 0.6, "0.60"), (0.012, -0.0034, "-0.003"), (12.3, 12.3, "12"), (0.0, 0.0, "0"), (1e-12, 1e-12, "0")],
)
def test_numbers_of_a_map_have_two_digits(limit: float, value: float, number: str) -> None:
    assert HeatScale(limit).number(value) == number


def test_colours_of_a_map() -> None:
    scale = HeatScale.of(np.array([-0.5, 0.25]))
    assert scale.limit == 0.5
    assert scale.colour(-0.5) == "#2166ac"
    assert scale.colour(0.0) == "#f7f7f7" == HeatScale(0.0).colour(0.0)
    assert (scale.ink(-0.5), scale.ink(0.1)) == ("#ffffff", "#18181b")
