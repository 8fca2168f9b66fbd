"""The comparison of two results of a benchmark: what is told, and when it fails."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare

OLD: dict[str, Any] = {
    "clips": 1000,
    "seconds": {"python": {"median": 0.02, "slowest": 9.0, "repeats": 5}, "search": {"median": 0.2}},
    "rows": [{"batch": 1, "items_per_second": 50.0, "memory_bytes": 4096}, {"batch": 8, "items_per_second": 80.0}],
    "recall": 0.9,
}


def compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new: Any, *arguments: str
) -> tuple[int | str, list[str]]:
    """The exit code or error, and the lines of the table in words."""
    for name, result, machine in (("old", OLD, "one"), ("new", new, "one" if "--same" in arguments else "two")):
        document = {"benchmark": "search", "machine": {"processor": machine}, "result": result}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    own = [argument for argument in arguments if argument != "--same"]
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "old.json"), str(tmp_path / "new.json"), *own])
    with pytest.raises(SystemExit) as end:
        compare.main()
    assert end.value.code is not None
    return end.value.code, capsys.readouterr().out.splitlines()


def changed(**values: Any) -> dict[str, Any]:
    return deepcopy(OLD) | values


def test_what_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = compared(tmp_path, monkeypatch, capsys, OLD, "--same")
    assert code == 0
    assert [line.split("  ")[0] for line in lines] == [
        "figure",
        "seconds/python/median",
        "seconds/search/median",
        "rows/batch 1/items_per_second",
        "rows/batch 1/memory_bytes",
        "rows/batch 8/items_per_second",
    ]
    assert all(line.split()[-1] == "1.000" for line in lines[1:])


def test_a_time_and_a_rate_that_got_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = changed(seconds={"python": {"median": 0.02}, "search": {"median": 0.3}})
    new["rows"][1]["items_per_second"] = 160.0
    code, lines = compared(tmp_path, monkeypatch, capsys, new, "--same")
    assert code == 1
    assert lines[1].split() == ["seconds/search/median", "0.2", "0.3", "1.500", "worse"]
    assert lines[-1].split()[-3:] == ["160", "0.500", "better"]
    assert compared(tmp_path, monkeypatch, capsys, new, "--same", "--factor", "1.6")[0] == 0


def test_rows_are_found_by_what_they_are_of_and_missing_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = compared(tmp_path, monkeypatch, capsys, changed(rows=OLD["rows"][1:]), "--same")
    assert code == 1
    gone = [line.split("  ")[0] for line in lines if line.endswith("gone")]
    assert gone == ["rows/batch 1/items_per_second", "rows/batch 1/memory_bytes"]


def test_ratios_within_each_run_hold_between_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = changed(seconds={"python": {"median": 0.04}, "search": {"median": 0.4}})
    new["rows"] = [row | {"items_per_second": row["items_per_second"] / 2} for row in new["rows"]]
    code, lines = compared(tmp_path, monkeypatch, capsys, new)
    assert (code, lines[0].partition(":")[0]) == (1, "note")
    code, lines = compared(tmp_path, monkeypatch, capsys, new, "--relative-to", "python")
    assert code == 0
    assert all(line.split()[-1] == "1.000" for line in lines[1:])


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("{", [], "is no result of a benchmark"),
        ("[]", [], "is no result of a benchmark"),
        ('{"benchmark": "other", "machine": {}, "result": {}}', [], "is of search and"),
        (None, ["--relative-to", "rust"], "no time is called 'rust': known are seconds/python"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    arguments: list[str],
    message: str,
) -> None:
    compared(tmp_path, monkeypatch, capsys, OLD)
    if content is not None:
        (tmp_path / "new.json").write_text(content)
    files = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    monkeypatch.setattr(sys, "argv", ["compare.py", *files, *arguments])
    with pytest.raises(SystemExit, match=message):
        compare.main()


def test_a_result_without_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(OLD, "seconds", {})
    monkeypatch.setitem(OLD, "rows", [])
    assert "has no times, rates or sizes" in str(compared(tmp_path, monkeypatch, capsys, OLD)[0])
