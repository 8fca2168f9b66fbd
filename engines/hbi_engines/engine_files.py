"""Finds engines that TensorRT built of a bundle's graphs, by the records beside them.

An engine belongs to one graph, to one release of one flavour of TensorRT and to the GPUs that it was built for.
TensorRT notices a misfit only while it loads an engine, and does not always say why; so the record, a JSON document,
is read first.

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
"""Folder of the engines inside a bundle's folder."""
FORMAT_VERSION = 1
SHOWN = 12
"""Digits of a hash that a message shows."""


@dataclass(frozen=True)
class Flavor:
    """One of the two TensorRTs, whose Python interfaces are alike.

    Attributes:
        device: Name in --device, and in names of files.
        module: Name of the Python module.
        option: Name in `hbi-export trt --flavor`, and of the extra to install.
        suits: GPUs that it is for, in words.
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
    """A plugin that an engine calls, by the names that it is registered under."""

    name: str
    version: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}::{self.name} {self.version}"


@dataclass(frozen=True)
class Target:
    """TensorRT, precision and GPU that an engine must fit.

    Attributes:
        flavor: The TensorRT.
        version: Its exact version.
        precision: Precision of the products of matrices: "fp32", "fp16" or "bf16".
        gpu: GPU to run on; None where there is none, and any will do.
    """

    flavor: Flavor
    version: str
    precision: str
    gpu: GPU | None


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """Origin, requirements and size of an engine.

    Attributes:
        graph: Name of the graph in the bundle.
        graph_sha256: Hash of the ONNX file that the engine was built of.
        engine_sha256: Hash of the engine's own file.
        flavor: A key of `FLAVORS`.
        version: Exact release of TensorRT.
        compute_capabilities: Compute capabilities of the GPUs that it runs on, such as "sm89".
        gpu: Name of the only GPU that it runs on; empty where any of those compute capabilities will do.
        precision: Precision of the products of matrices: "fp32", "fp16" or "bf16".
        ranges: Name of a dynamic axis -> its sizes.
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        plugins: Plugins that must be registered before it is loaded.
        layers: Number of layers before TensorRT fused them.
        size_bytes: Size of the engine's file.
        build_seconds: Time of the build, reading the graph included.
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
        """Stem of the names of its two files; another build for the same target replaces them."""
        return f"{self.graph}.{self.flavor}.{self.precision}.{'-'.join(self.compute_capabilities)}"

    def to_json(self) -> bytes:
        """Returns the bytes of the record's file."""
        return (json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}, indent=2) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> EngineRecord:
        """Reads a record.

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
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"{path} is no record of an engine that this version can read ({type(error).__name__}: {error}): "
                "remove it and its engine, and build them again with 'hbi-export trt'"
            ) from error

    def mismatch(self, graph_sha256: str, target: Target) -> str:
        """Returns why the engine cannot run the graph there; empty if it can, as far as a record tells."""
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
    """Location of the engines of a graph.

    Attributes:
        bundle: Folder of the bundle; a zip holds no engines.
        graph: Name of the graph.
    """

    bundle: Path
    graph: str

    def records(self, flavor: Flavor) -> list[Path]:
        """Lists the record files of the graph's engines for one TensorRT, by name."""
        return sorted((self.bundle / FOLDER).glob(f"{self.graph}.{flavor.device}.*.json"))

    def find(self, graph_sha256: str, target: Target) -> tuple[Path, EngineRecord]:
        """Finds the file and the record of the engine that fits.

        Raises:
            DeviceError: No engine fits; says why, and the command that builds one.
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
        """Returns the command that builds a missing engine."""
        if self.bundle.is_file():
            return f"engines are built into a bundle's folder: unpack {self.bundle} and give --bundle the folder"
        gpu = f" --gpu {target.gpu.compute_capability}" if target.gpu and target.flavor.option == "rtx" else ""
        return (
            f"build one with: hbi-export trt {self.bundle} --flavor {target.flavor.option} "
            f"--precision {target.precision}{gpu}"
        )


def read_engine(path: Path, record: EngineRecord) -> bytes:
    """Reads an engine and checks it against the hash in its record.

    Raises:
        EngineError: The file is missing or was altered.
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
