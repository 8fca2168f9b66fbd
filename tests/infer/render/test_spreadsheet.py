"""Comma-separated values that no spreadsheet runs."""

from __future__ import annotations

import csv
import io

import pytest

from hbi_infer.render.spreadsheet import csv_text


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\uff1d1+1",
        "\uff0dx",
        "\rb",
        "--",
        "-a.mp4",
    ],
)
def test_what_begins_as_a_formula_gets_an_apostrophe(cell: str) -> None:
    ((first, second),) = csv.reader(io.StringIO(csv_text([("a", cell)]), newline=""))
    assert (first, second) == ("a", f"'{cell}")


@pytest.mark.parametrize("cell", ["", "-1.5", "+3", "-0.000001", "-1e-7", "-inf", "a=b", 'a, "b"\n', "0.5 1.0", "a-b"])
def test_numbers_and_other_texts_stay_what_they_are(cell: str) -> None:
    ((first, second),) = csv.reader(io.StringIO(csv_text([("a", cell)]), newline=""))
    assert (first, second) == ("a", cell)
