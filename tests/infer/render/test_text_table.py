"""Columns of plain text, aligned."""

from __future__ import annotations

import pytest

from hbi_infer.render.text_table import aligned


def test_text_is_aligned_left_and_numbers_right() -> None:
    rows = [("cpu", "10.5", "as asked"), ("openvino", "9", "")]
    assert aligned(("device", "seconds", ""), rows, text_columns=1) == [
        "device    seconds",
        "cpu          10.5  as asked",
        "openvino        9",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert aligned(("a", "b"), [], text_columns=2) == ["a  b"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        aligned(("a", "b"), [("1",)], text_columns=2)
