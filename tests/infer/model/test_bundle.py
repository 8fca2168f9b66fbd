from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from hbi_infer.errors import BundleError
from hbi_infer.model.bundle import FILE_LIMIT_BYTES, Bundle, default_bundle_path, write_bundle
from hbi_infer.model.manifest import LevelSpec
from tests.builders.command_line import unmeasured
from tests.builders.tiny_bundle import tiny_graphs, tiny_manifest, tokenizer_json, write_tiny_bundle
from tests.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"{prefix}{file.name}")
    return path


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("form", ["folder", "zip", "zip of the folder itself"])
def test_what_was_written_is_read(folder: Path, form: str) -> None:
    path = folder if form == "folder" else zipped(folder, "" if form == "zip" else "tiny/")
    bundle = Bundle.load(path)
    assert bundle.manifest.name == "tiny"
    assert bundle.manifest.levels[1] == LevelSpec("event", 1, 1, 0.5)
    assert bundle.manifest.graphs["text_encoder"].inputs[0].shape == ("B", "T")
    assert bundle.manifest.provenance.metrics == {"text_to_video_r1": 1.0}
    assert {name: bundle.graph_bytes(name) for name in bundle.manifest.graphs} == tiny_graphs()
    assert bundle.tokenizer_json() == tokenizer_json()
    assert bundle.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    assert bundle.sizes_bytes()["tokenizer.json"] == len(tokenizer_json().encode())
    bundle.verify()


def test_the_same_model_has_the_same_hash(tmp_path: Path) -> None:
    first, second = (Bundle.load(write_tiny_bundle(tmp_path / name)).sha256 for name in "ab")
    assert first == second


def test_the_default_bundle_lies_in_the_package() -> None:
    assert default_bundle_path().parts[-3:] == ("hbi_infer", "bundles", "shapes")


@pytest.mark.parametrize("file", ["video_encoder.onnx", "tokenizer.json"])
@pytest.mark.parametrize("as_zip", [False, True])
def test_an_altered_file_is_refused_when_it_is_read(folder: Path, file: str, as_zip: bool) -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    bundle = Bundle.load(zipped(folder) if as_zip else folder)
    bundle.graph_bytes("text_encoder")  # the others can still be used
    for read in (
        bundle.verify,
        bundle.tokenizer_json if "json" in file else lambda: bundle.graph_bytes("video_encoder"),
    ):
        with pytest.raises(BundleError, match=rf"{file} was altered or damaged .*: copy the bundle again"):
            read()


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_missing_file_is_named(folder: Path, as_zip: bool) -> None:
    (folder / "text_encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"tiny\S* lacks text_encoder.onnx: copy the bundle again"):
        Bundle.load(zipped(folder) if as_zip else folder)


def test_a_graph_that_the_bundle_does_not_have(folder: Path) -> None:
    with pytest.raises(
        BundleError, match=r"no graph captioner; it has video_encoder, text_encoder and can do retrieve"
    ):
        Bundle.load(folder).graph_bytes("captioner")


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / "bundle.json").open("wb") as stream:
        stream.truncate(2**40)  # a sparse file
    with pytest.raises(BundleError, match="has 1,099,511,627,776 bytes; the most is 1,048,576"):
        Bundle.load(folder)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*none: give a bundle's folder or a \.zip"):
        Bundle.load(tmp_path / "none")
    with pytest.raises(BundleError, match=r"has no bundle\.json: give a bundle's folder or a \.zip"):
        Bundle.load(tmp_path)
    (tmp_path / "text").write_text("not a zip")
    with pytest.raises(BundleError, match=r"cannot be read as a bundle \(File is not a zip file\)"):
        Bundle.load(tmp_path / "text")


@pytest.mark.parametrize("name", ["../outside", "/etc/cron.d/job", "a/../../b", "a\\..\\b"])
def test_a_zip_with_names_that_lead_out_is_refused(folder: Path, name: str) -> None:
    path = zipped(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(BundleError, match="which leads out of it: do not trust this file"):
        Bundle.load(path)


def test_a_zip_of_two_bundles_is_refused(folder: Path) -> None:
    path = zipped(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("second/bundle.json", b"{}")
    with pytest.raises(BundleError, match=r"holds 2 files bundle\.json; it must be a zip of one bundle's folder"):
        Bundle.load(path)


def test_a_zip_that_claims_a_huge_file_is_not_unpacked(folder: Path) -> None:
    """The size in the zip's directory is what counts; here it is changed to more than a graph can have."""
    path = zipped(folder)
    content = bytearray(path.read_bytes())
    name = content.rindex(b"video_encoder.onnx")  # of the entry in the central directory, 46 bytes from its start
    content[name - 46 + 24 : name - 46 + 28] = (FILE_LIMIT_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(BundleError, match="has 2,147,483,649 bytes; the most is 2,147,483,648"):
        Bundle.load(path).graph_bytes("video_encoder")


def test_a_damaged_zip_is_refused(folder: Path) -> None:
    path = zipped(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("tokenizer.json").header_offset + 60
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read .*: copy the bundle again"):
        Bundle.load(path).tokenizer_json()


def test_writing_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "new" / "bundle")
    (folder / "left over").touch()
    renamed = dataclasses.replace(tiny_manifest(), name="second")
    write_bundle(folder, renamed, tiny_graphs(), tokenizer_json())
    assert Bundle.load(folder).manifest.name == "second"
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["bundle.json", "tokenizer.json", "video_encoder.onnx", "text_encoder.onnx"]
    )
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"], "no temporary folder is left"
    for other in (tmp_path / "new", tmp_path / "file"):
        if not other.exists():
            other.touch()
        with pytest.raises(BundleError, match="exists and is not a bundle; choose a new folder"):
            write_tiny_bundle(other)
    with pytest.raises(BundleError, match=r"names the graphs \['text_encoder', 'video_encoder'\]; given were \[\]"):
        write_bundle(tmp_path / "c", tiny_manifest(), {}, tokenizer_json())


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path) -> None:
    """The second write happens in a process whose files may not grow past 1,000 bytes, as on a full disk."""
    folder = write_tiny_bundle(tmp_path / "bundle")
    before = Bundle.load(folder)
    script = (
        "import signal, resource, sys; from pathlib import Path; "
        "from tests.builders.tiny_bundle import *; tiny_graphs();"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_tiny_bundle(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-B", "-c", script, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=unmeasured(), capture_output=True, text=True, check=False)
    assert "BundleError: cannot write" in done.stderr.splitlines()[-1]
    assert "File too large; free space or choose another folder" in done.stderr.splitlines()[-1]
    assert Bundle.load(folder) == before
    before.verify()
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_graph_that_keeps_weights_in_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the bundle or not: only what is hashed is read."""
    graphs = tiny_graphs()
    model = onnx.load_from_string(graphs["text_encoder"])
    tensor = next(each for each in model.graph.initializer if each.name == "table")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    folder = tmp_path / "bundle"
    write_bundle(folder, tiny_manifest(), {**graphs, "text_encoder": model.SerializeToString()}, tokenizer_json())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"text_encoder of .*: the graph keeps its weights 'table' in another file"):
        Bundle.load(folder).graph_bytes("text_encoder")


def test_a_tokenizer_that_is_no_text(folder: Path) -> None:
    content = b"\xff" + tokenizer_json().encode()
    (folder / "tokenizer.json").write_bytes(content)
    edited(folder, lambda document: document["tokenizer"].update(sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(BundleError, match=r"tokenizer\.json is not UTF-8 \(byte 0\): export the bundle again"):
        Bundle.load(folder).tokenizer_json()
