"""Engines that TensorRT built of a bundle's graphs, each with a record beside it of what it is good for.

An engine belongs to one graph, to one release of one flavour of TensorRT and to the GPUs that it was built for.
TensorRT finds out only while it loads one, and does not always say why; so the record, a JSON document, is read first.

    BUNDLE/engines/video_encoder.tensorrt-rtx.fp16.sm86-sm89.engine
    BUNDLE/engines/video_encoder.tensorrt-rtx.fp16.sm86-sm89.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbi_engines.cuda.driver import GPU
from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.errors import DeviceError, EngineError

FOLDER = "engines"
"""Inside a bundle's folder."""
FORMAT_VERSION = 1
SHOWN = 12
"""Digits of a hash in a message."""


@dataclass(frozen=True)
class Flavor:
    """One of the two TensorRTs, whose Python interfaces are alike.

    Attributes:
        device: What --device calls it, and what is named after it.
        module: What is imported.
        option: What `hbi-export trt --flavor` and the extra to install are called.
        suits: Which GPUs it is for.
    """

    device: str
    module: str
    option: str
    suits: str


FLAVORS = {
    flavor.device: flavor
    for flavor in (
        Flavor("tensorrt", "tensorrt", "tensorrt", "data centres, and any other"),
        Flavor("tensorrt-rtx", "tensorrt_rtx", "rtx", "GeForce and RTX cards"),
    )
}


@dataclass(frozen=True)
class PluginUse:
    """A plugin that an engine calls, by what it is registered as."""

    name: str
    version: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}::{self.name} {self.version}"


@dataclass(frozen=True)
class Target:
    """What an engine must fit: who is to run it, and where.

    Attributes:
        flavor: Which TensorRT.
        version: Its exact version.
        precision: Of the products of matrices: "fp32", "fp16" or "bf16".
        gpu: The one it is to run on; None where there is none, and then nothing is said of it.
    """

    flavor: Flavor
    version: str
    precision: str
    gpu: GPU | None


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """What an engine is and how it was built.

    Attributes:
        graph: Its name in the bundle.
        graph_sha256: Of the ONNX file that it was built of.
        engine_sha256: Of the engine's own file.
        flavor: A key of `FLAVORS`.
        version: The exact release of TensorRT.
        compute_capabilities: Of GPUs that it runs on, such as "sm89".
        gpu: The only GPU that it runs on, by name; empty where any of those compute capabilities will do.
        precision: Of the products of matrices: "fp32", "fp16" or "bf16".
        ranges: Name of a dynamic axis -> its sizes.
        inputs: What goes in.
        outputs: What comes out.
        plugins: What must be registered before it is loaded.
        layers: Of the network before TensorRT fused them.
        size_bytes: Of the engine's file.
        build_seconds: How long it took, reading the graph included.
    """

    graph: str
    graph_sha256: str
    engine_sha256: str
    flavor: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str
    precision: str
    ranges: Mapping[str, AxisRange]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plugins: tuple[PluginUse, ...]
    layers: int
    size_bytes: int
    build_seconds: float

    @property
    def stem(self) -> str:
        """Of the names of its two files. Another build for the same purpose takes their place."""
        return f"{self.graph}.{self.flavor}.{self.precision}.{'-'.join(self.compute_capabilities)}"

    def to_json(self) -> bytes:
        """The bytes of the record's file."""
        return (json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}, indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> EngineRecord:
        """Read a record.

        Raises:
            EngineError: It cannot be read, or this version did not write it.
        """
        try:
            document = json.loads(path.read_bytes())
            if (version := document.pop("format_version")) != FORMAT_VERSION:
                raise ValueError(f"format_version is {version}, known is {FORMAT_VERSION}")
            specs = {
                side: tuple(TensorSpec(**spec | {"shape": tuple(spec["shape"])}) for spec in document[side])
                for side in ("inputs", "outputs")
            }
            return cls(
                **document
                | specs
                | {
                    "compute_capabilities": tuple(document["compute_capabilities"]),
                    "ranges": {name: AxisRange(**sizes) for name, sizes in document["ranges"].items()},
                    "plugins": tuple(PluginUse(**plugin) for plugin in document["plugins"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{path} is no record of an engine that this version can read ({type(error).__name__}: {error}): "
                "remove it and its engine, and build them again with 'hbi-export trt'"
            ) from error

    def mismatch(self, graph_sha256: str, target: Target) -> str:
        """Why the engine cannot run the graph there; empty if it can, as far as a record tells."""
        if self.graph_sha256 != graph_sha256:
            return (
                f"it was built of another {self.graph} (sha256 {self.graph_sha256[:SHOWN]}; the bundle's is "
                f"{graph_sha256[:SHOWN]})"
            )
        if self.flavor != target.flavor.device:
            return f"it was built with {self.flavor}, not with {target.flavor.device}"
        if self.version != target.version:
            return f"it was built with {self.flavor} {self.version}; installed is {target.version}"
        if self.precision != target.precision:
            return f"it is in {self.precision}, asked for is {target.precision}"
        gpu = target.gpu
        if gpu and gpu.compute_capability not in self.compute_capabilities:
            built_for = ", ".join(self.compute_capabilities)
            return f"it was built for {built_for}; the {gpu.name} here is {gpu.compute_capability}"
        if gpu and self.gpu and gpu.name != self.gpu:
            return f"it was built on {self.gpu} and for nothing else; here is {gpu.name}"
        return ""


@dataclass(frozen=True)
class BuiltEngines:
    """Where the engines of a graph lie.

    Attributes:
        bundle: The bundle's folder, or its zip, which holds none.
        graph: The graph's name.
    """

    bundle: Path
    graph: str

    def records(self, flavor: Flavor) -> list[Path]:
        """Files of records of the graph's engines for one TensorRT, by name."""
        return sorted((self.bundle / FOLDER).glob(f"{self.graph}.{flavor.device}.*.json"))

    def find(self, graph_sha256: str, target: Target) -> tuple[Path, EngineRecord]:
        """The file and the record of the engine that fits.

        Raises:
            DeviceError: None does; says why, and the command that builds one.
        """
        reasons = []
        for path in self.records(target.flavor):
            try:
                record = EngineRecord.read(path)
            except EngineError as error:
                reasons.append(str(error))
                continue
            if not (reason := record.mismatch(graph_sha256, target)):
                return path.with_suffix(".engine"), record
            reasons.append(f"{path.name}: {reason}")
        found = f"no engine of {self.graph} fits: {'; '.join(reasons)}" if reasons else f"{self.graph} has no engine"
        raise DeviceError(f"device {target.flavor.device} cannot run here: {found}; {self.how_to_build(target)}")

    def how_to_build(self, target: Target) -> str:
        """The command that builds what is missing."""
        if self.bundle.is_file():
            return f"engines are built into a bundle's folder: unpack {self.bundle} and give --bundle the folder"
        gpu = f" --gpu {target.gpu.compute_capability}" if target.gpu and target.flavor.option == "rtx" else ""
        return (
            f"build one with: hbi-export trt {self.bundle} --flavor {target.flavor.option} "
            f"--precision {target.precision}{gpu}"
        )


def read_engine(path: Path, record: EngineRecord) -> bytes:
    """The bytes of an engine, once they are known to be those that were built.

    Raises:
        EngineError: The file is missing or another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}): build it again with 'hbi-export trt'") from error
    if (found := hashlib.sha256(content).hexdigest()) != record.engine_sha256:
        raise EngineError(
            f"{path} was altered or damaged (sha256 {found[:SHOWN]}, its record says {record.engine_sha256[:SHOWN]}): "
            "build it again with 'hbi-export trt'"
        )
    return content
