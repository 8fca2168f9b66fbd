"""An explanation as a file: the old one or the whole new one."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.render.explain_file import write_explanation
from hbi_infer.tasks.explain import Explanation


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_the_old_file_and_no_part_of_a_new_one(
    made: Explanation, tmp_path: Path, overwrite: bool
) -> None:
    out = tmp_path / "why.json"
    if overwrite:
        out.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*why\.json \(File too large\)"):
            write_explanation(made, {"long": "x" * 10_000}, out, overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"why.json": "old"} if overwrite else {})
    write_explanation(made, {}, out, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["why.json"]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.HTML", b"<!DOCTYPE html>"), ("a.json", b"{")])
def test_the_suffix_names_the_format(made: Explanation, tmp_path: Path, name: str, start: bytes) -> None:
    write_explanation(made, {"model": "tiny"}, tmp_path / name, overwrite=False)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    if name == "a.json":
        assert json.loads(content) == {"model": "tiny"}
