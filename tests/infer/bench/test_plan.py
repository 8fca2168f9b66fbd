"""Plans that can be measured, and those that cannot."""

from __future__ import annotations

from typing import Any

import pytest

from hbi_infer.bench.plan import Plan
from hbi_infer.errors import InputError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": ("gpu",)}, "there is no device 'gpu'"),
        ({"stages": ("decoding",)}, "there is no stage 'decoding'"),
        ({"batches": (1, 0)}, "give sizes of 1 or more"),
        ({"seconds": 0.0}, "must be greater than 0"),
        ({"seconds": float("nan")}, "must be greater than 0"),
    ],
)
def test_a_plan_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**fields)
