"""The command `hbi-infer info`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.builders.command_line import run
from tests.builders.tiny_bundle import NOTICE


def test_info(bundle: Path) -> None:
    text = run("info", bundle).stdout
    assert text.startswith(f"name    tiny\nnote    {NOTICE}\npath    {bundle}\n")
    assert "\nlevel   event: 1 video and 1 text tokens, rate 0.5\n" in text
    assert "\nmetric  text_to_video_r1 1\n" in text
    document = json.loads(run("info", bundle, "--json").stdout)
    assert document["path"] == str(bundle)
    assert document["provenance"]["metrics"] == {"text_to_video_r1": 1.0}


def test_info_says_where_a_converted_model_comes_from(bundle: Path, tmp_path: Path) -> None:
    document = json.loads((bundle / "bundle.json").read_text())
    document["provenance"] |= {"origin": "owner/name", "revision": "0123abc"}
    converted = tmp_path / "converted"
    shutil.copytree(bundle, converted)
    (converted / "bundle.json").write_text(json.dumps(document))
    assert "\norigin  owner/name at 0123abc\n" in run("info", converted).stdout
