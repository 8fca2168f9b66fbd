"""Builds one engine, in a process of its own: TensorRT aborts where it fails badly, and a plugin can crash it.

`hbi_export.tensorrt.build` starts it, through `hbi_infer.worker_process`; it tells each phase of the build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbi_engines.engine import AxisRange, TensorSpec
from hbi_engines.engine_files import FLAVORS, PluginUse
from hbi_engines.half_products import Precision
from hbi_engines.tensorrt.flavor import collecting_logger, import_flavor
from hbi_engines.tensorrt.plugins import register_plugins, require_plugins
from hbi_export.tensorrt.graph import for_tensorrt, nodes_with_plugins
from hbi_infer.errors import ExportError
from hbi_infer.worker_process import Answer, Tell


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """A build of one engine.

    Attributes:
        flavor: A key of `FLAVORS`.
        precision: Precision of the products of matrices.
        inputs: Inputs of the graph.
        ranges: Name of a dynamic axis -> its sizes.
        gpus: Compute capabilities to build for, such as "sm89"; none for the GPU that is here.
        plugins: Whether nodes that have a plugin are built with it.
        engine: File to write.
        timing_cache: File that is read if it is there and written afterwards; TensorRT-RTX measures no time.
    """

    flavor: str
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    ranges: Mapping[str, AxisRange]
    gpus: tuple[str, ...]
    plugins: bool
    engine: Path
    timing_cache: Path

    def to_document(self) -> dict[str, Any]:
        """Returns a JSON object that `from_document` reads."""
        return asdict(self) | {"engine": str(self.engine), "timing_cache": str(self.timing_cache)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> BuildJob:
        """Reads what `to_document` wrote."""
        return cls(
            flavor=document["flavor"],
            precision=document["precision"],
            inputs=tuple(TensorSpec(**spec | {"shape": tuple(spec["shape"])}) for spec in document["inputs"]),
            ranges={name: AxisRange(**sizes) for name, sizes in document["ranges"].items()},
            gpus=tuple(document["gpus"]),
            plugins=document["plugins"],
            engine=Path(document["engine"]),
            timing_cache=Path(document["timing_cache"]),
        )


@dataclass(frozen=True, kw_only=True)
class Built:
    """Result of a build.

    Attributes:
        version: Version of TensorRT.
        layers: Number of layers before TensorRT fused them.
        plugins: Plugins that the network calls; nodes that were read through their functions are not among them.
    """

    version: str
    layers: int
    plugins: tuple[PluginUse, ...]

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Built:
        """Reads the result of `asdict`."""
        return cls(**document | {"plugins": tuple(PluginUse(**plugin) for plugin in document["plugins"])})


def build(job: BuildJob, content: bytes, say: Callable[[dict[str, Any]], None]) -> Built:
    """Parses a graph and builds its engine.

    Args:
        job: The build.
        content: The serialised ONNX model.
        say: Called with each phase that TensorRT enters, as {"phase": its name}.

    Raises:
        DeviceError: Plugins were asked for and cannot be registered.
        EngineError: TensorRT did not take a plugin that was asked for.
        ExportError: TensorRT cannot read the graph, or cannot build it for those GPUs.
    """
    if job.plugins:
        register_plugins(FLAVORS[job.flavor])  # before TensorRT is imported, as its docstring says
    library = import_flavor(FLAVORS[job.flavor])
    logger = collecting_logger(library)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(for_tensorrt(content, job.precision, plugins=job.plugins)):
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        found = [f"{error.node_operator()} {error.node_name()}: {' '.join(error.desc().split())}" for error in errors]
        raise ExportError(f"{job.flavor} cannot read the graph: {'; '.join(found or logger.errors)}")
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    used = [_plugin(layer, library) for layer in layers if layer.type == library.LayerType.PLUGIN_V3]
    if job.plugins:
        require_plugins(used, nodes_with_plugins(content))
    config = builder.create_builder_config()
    monitor = _monitor(library, say)
    config.progress_monitor = monitor
    config.add_optimization_profile(_profile(builder, job))
    if job.gpus:
        config.num_compute_capabilities = len(job.gpus)
        for place, gpu in enumerate(job.gpus):
            config.set_compute_capability(getattr(library.ComputeCapability, gpu.upper()), place)
    if measures := job.flavor == "tensorrt":
        known = job.timing_cache.read_bytes() if job.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{job.flavor} built nothing: {'; '.join(logger.errors) or 'it gave no reason'}")
    job.engine.write_bytes(memoryview(engine))
    if measures:
        job.timing_cache.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return Built(version=library.__version__, layers=len(layers), plugins=tuple(dict.fromkeys(used)))


def _profile(builder: Any, job: BuildJob) -> Any:
    """Makes the profile of the sizes that the engine takes: all axes at their least, their usual and their most."""
    profile = builder.create_optimization_profile()
    for spec in job.inputs:
        shapes = [
            tuple(size if isinstance(size, int) else getattr(job.ranges[size], part) for size in spec.shape)
            for part in ("least", "usual", "most")
        ]
        profile.set_shape(spec.name, *shapes)
    return profile


def _plugin(layer: Any, library: Any) -> PluginUse:
    layer.__class__ = library.IPluginV3Layer
    info = layer.plugin.get_capability_interface(library.PluginCapabilityType.CORE)
    return PluginUse(info.plugin_name, info.plugin_version, info.plugin_namespace)


def _monitor(library: Any, say: Callable[[dict[str, Any]], None]) -> Any:
    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.top = ""

        def phase_start(self, name: str, parent: str | None, _steps: int) -> None:
            self.top = self.top or name
            if parent in (None, self.top):  # nested phases are too short to be read
                say({"phase": name})

        def step_complete(self, _name: str, _step: int) -> bool:
            return True

        def phase_finish(self, name: str) -> None:
            """Does nothing; TensorRT requires the method."""

    return Monitor()


def work(job: dict[str, Any], content: bytes, tell: Tell) -> Answer:
    """Builds an engine of the graph in `content`, as a job of `hbi_infer.worker_process`."""
    return Answer(asdict(build(BuildJob.from_document(job), content, tell)))
