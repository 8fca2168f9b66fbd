"""Records of engines: what fits is found, and everything else is refused before TensorRT sees it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from hbi_engines.cuda.driver import GPU
from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import (
    FLAVORS,
    FOLDER,
    BuiltEngines,
    EngineRecord,
    PluginUse,
    Target,
    read_engine,
)
from hbi_engines.errors import DeviceError, EngineError

RTX = FLAVORS["tensorrt-rtx"]
ADA = GPU("NVIDIA RTX 4090", "sm89", 24 * 2**30)
GRAPH = hashlib.sha256(b"the graph").hexdigest()
TARGET = Target(RTX, "1.7.1.116", "fp16", ADA)
RECORD = EngineRecord(
    graph="video_encoder",
    graph_sha256=GRAPH,
    engine_sha256=hashlib.sha256(b"the engine").hexdigest(),
    flavor="tensorrt-rtx",
    version="1.7.1.116",
    compute_capabilities=("sm86", "sm89"),
    gpu="",
    precision="fp16",
    ranges={"batch": AxisRange(1, 8, 64)},
    inputs=(TensorSpec("frames", "uint8", ("batch", 12, 64, 64, 3)),),
    outputs=(TensorSpec("entity_tokens", "float32", ("batch", 12, 192)),),
    plugins=(PluginUse("TokenMerge", "1", "hbi"),),
    layers=967,
    size_bytes=10,
    build_seconds=1.5,
)


def write(bundle: Path, record: EngineRecord, engine: bytes = b"the engine") -> Path:
    folder = bundle / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / f"{record.stem}.engine").write_bytes(engine)
    path = folder / f"{record.stem}.json"
    path.write_bytes(record.to_json())
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, RECORD)
    assert path.name == "video_encoder.tensorrt-rtx.fp16.sm86-sm89.json"
    assert EngineRecord.read(path) == RECORD


def test_the_engine_that_fits_is_found(tmp_path: Path) -> None:
    write(tmp_path, dataclasses.replace(RECORD, precision="fp32"))
    write(tmp_path, dataclasses.replace(RECORD, graph="text_encoder"))
    path = write(tmp_path, RECORD)
    found, record = BuiltEngines(tmp_path, "video_encoder").find(GRAPH, TARGET)
    assert (found, record) == (path.with_suffix(".engine"), RECORD)
    assert read_engine(found, record) == b"the engine"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"graph_sha256": "0" * 64}, f"it was built of another video_encoder (sha256 {'0' * 12}; the bundle's is "),
        ({"version": "1.6.0.1"}, "it was built with tensorrt-rtx 1.6.0.1; installed is 1.7.1.116"),
        ({"precision": "fp32"}, "it is in fp32, asked for is fp16"),
        (
            {"compute_capabilities": ("sm120",)},
            "it was built for sm120; the NVIDIA RTX 4090 here is sm89",
        ),
        ({"gpu": "NVIDIA L4"}, "it was built on NVIDIA L4 and for nothing else; here is NVIDIA RTX 4090"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_with_the_cure(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    write(tmp_path, dataclasses.replace(RECORD, **change))
    with pytest.raises(DeviceError) as caught:
        BuiltEngines(tmp_path, "video_encoder").find(GRAPH, TARGET)
    message = str(caught.value)
    assert message.startswith("device tensorrt-rtx cannot run here: no engine of video_encoder fits: video_encoder.")
    assert reason in message
    assert message.endswith(f"hbi-export trt {tmp_path} --flavor rtx --precision fp16 --gpu sm89")


def test_without_engines_the_command_that_builds_them_is_named(tmp_path: Path) -> None:
    write(tmp_path, dataclasses.replace(RECORD, flavor="tensorrt"))
    with pytest.raises(DeviceError, match=r"video_encoder has no engine; build one with: hbi-export trt .* --flavor"):
        BuiltEngines(tmp_path, "video_encoder").find(GRAPH, TARGET)
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(b"")
    with pytest.raises(DeviceError, match=r"unpack .*bundle\.zip and give --bundle the folder"):
        BuiltEngines(bundle, "video_encoder").find(GRAPH, TARGET)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("ranges"),
        lambda document: document.update(more=1),
        lambda document: document.update(format_version=2),
        lambda document: document["inputs"][0].pop("shape"),
        lambda document: document.update(plugins="none"),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, damage: object) -> None:
    path = write(tmp_path, RECORD)
    document = json.loads(path.read_text())
    damage(document)  # type: ignore[operator]
    path.write_text(json.dumps(document))
    with pytest.raises(EngineError, match="is no record of an engine that this version can read"):
        EngineRecord.read(path)
    with pytest.raises(DeviceError, match=r"is no record .*: remove it and its engine, .*; build one with: hbi-export"):
        BuiltEngines(tmp_path, "video_encoder").find(GRAPH, TARGET)


@pytest.mark.parametrize("content", [b"", b"[]", b"no json", b"\xff"])
def test_a_record_that_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, RECORD)
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is no record of an engine"):
        EngineRecord.read(path)


def test_an_altered_or_missing_engine_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, RECORD, engine=b"another engine").with_suffix(".engine")
    with pytest.raises(EngineError, match=r"was altered or damaged \(sha256 .*: build it again with 'hbi-export trt'"):
        read_engine(path, RECORD)
    path.unlink()
    with pytest.raises(EngineError, match=r"cannot be read \(No such file or directory\): build it again"):
        read_engine(path, RECORD)
