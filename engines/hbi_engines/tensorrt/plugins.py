"""Offers the nodes of domain `hbi` to TensorRT as plugins: `IPluginV3`, for the module of either flavour.

Building an engine with them needs no GPU: kernels are compiled and launched only where an engine runs.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hbi_engines.engine_files import Flavor, PluginUse
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.kernels.definitions import KERNELS, Attributes, Element, Kernel, Kind, compiler_problem
from hbi_engines.tensorrt.flavor import import_flavor

NAMESPACE, VERSION = "hbi", "1"
PLUGINS = tuple(PluginUse(name, VERSION, NAMESPACE) for name in KERNELS)
ELEMENT_NAMES: dict[str, Element] = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
"""Name in TensorRT -> element type of float tensors."""
KIND_NAMES: dict[Kind, str] = {"float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}


def plugins_problem(flavor: Flavor) -> str:
    """Returns why the plugins cannot be registered with a flavour and how to mend it; empty if they can."""
    try:
        register_plugins(flavor)
    except DeviceError as error:
        return str(error)
    return ""


@cache
def register_plugins(flavor: Flavor) -> tuple[Any, ...]:
    """Registers the plugins with TensorRT, for as long as this process lasts.

    TensorRT-RTX must not have been imported before, if a graph is to be read in this process.

    Returns:
        The plugins' creators, which TensorRT does not keep alive.

    Raises:
        DeviceError: TensorRT, the compiler of the kernels or a library of theirs cannot be loaded, or TensorRT refused
            a plugin.
    """
    if flavor.option == "rtx":
        _load_parser_beside_its_library(flavor)
    library = import_flavor(flavor)
    if problem := compiler_problem(flavor.option):
        raise DeviceError(f"the plugins cannot be used: {problem}; or build engines with --no-plugins")
    registry = library.get_plugin_registry()
    creators = tuple(_creator(library, kernel) for kernel in KERNELS.values())
    for creator in creators:
        if not registry.register_creator(creator, NAMESPACE):
            raise DeviceError(
                f"{flavor.device} {library.__version__} refused the plugin {NAMESPACE}::{creator.name}: pip install "
                f'--upgrade "hbi-infer[{flavor.option}]", or build engines with --no-plugins'
            )
    return creators


def _load_parser_beside_its_library(flavor: Flavor) -> None:
    """Loads RTX's parser of ONNX from a folder where it finds TensorRT by the name that it looks for.

    The packages hold libtensorrt_rtx.so.1; where a plugin is registered, the parser opens libtensorrt_rtx.so beside
    itself, and ends the process if that is not there.

    Raises:
        DeviceError: A library is missing or cannot be loaded.
    """
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None or not spec.submodule_search_locations:
        return  # not installed as packages: import_flavor reports a missing library
    folder = Path(spec.submodule_search_locations[0])
    links = tempfile.TemporaryDirectory(prefix="hbi-tensorrt-rtx-")
    atexit.register(links.cleanup)  # the parser looks there whenever it meets a plugin
    for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so.1"):
        link = Path(links.name) / name
        link.symlink_to(folder / f"{name.removesuffix('.1')}.1")
        try:
            ctypes.CDLL(str(link), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise DeviceError(
                f"a library that plugins need cannot be loaded: {link.resolve()} ({error}); pip install "
                f'--force-reinstall "hbi-infer[{flavor.option}]", or build engines with --no-plugins'
            ) from error


def _creator(library: Any, kernel: Kernel) -> Any:
    plugin = _plugin_class(library, kernel)

    class Creator(library.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.name, self.plugin_namespace, self.plugin_version = kernel.node, NAMESPACE, VERSION
            self.field_names = _fields(library, kernel.attributes)

        def create_plugin(self, _name: str, fields: Any, _phase: Any) -> Any:
            """Creates a plugin from the fields of a node, or from those in an engine."""
            given = {field.name: np.asarray(field.data).ravel()[0].item() for field in fields}
            kinds = {name: type(value) for name, value in kernel.attributes.items()}
            return plugin({name: kind(given.get(name, kernel.attributes[name])) for name, kind in kinds.items()})

    return Creator()


def _fields(library: Any, attributes: Attributes) -> Any:
    kinds = library.PluginFieldType
    return library.PluginFieldCollection(
        [
            library.PluginField(name, np.array([value], np.float32), kinds.FLOAT32)
            if isinstance(value, float)
            else library.PluginField(name, np.array([value], np.int32), kinds.INT32)
            for name, value in attributes.items()
        ]
    )


def _plugin_class(library: Any, kernel: Kernel) -> type[Any]:
    """Makes the plugin class of a kernel; TensorRT calls its methods by these names."""
    kinds = [*kernel.inputs.values(), *kernel.outputs.values()]
    num_inputs = len(kernel.inputs)
    bases = (library.IPluginV3, library.IPluginV3OneCore, library.IPluginV3OneBuild, library.IPluginV3OneRuntime)

    class Plugin(*bases):  # type: ignore[misc]
        def __init__(self, attributes: Attributes) -> None:
            for base in bases:
                base.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = kernel.node, VERSION, NAMESPACE
            self.num_outputs = len(kernel.outputs)
            self.timing_cache_id = ""
            self.attributes = attributes

        def get_capability_interface(self, _kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return type(self)(self.attributes)

        def get_fields_to_serialize(self) -> Any:
            return _fields(library, self.attributes)

        def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
            return [types[0] if kind == "element" else _type(library, kind) for kind in kernel.outputs.values()]

        def get_output_shapes(self, inputs: Sequence[Any], _: Any, builder: Any) -> list[Any]:
            shapes = kernel.output_shapes([list(shape) for shape in inputs], self.attributes)
            return [
                library.DimsExprs([builder.constant(size) if isinstance(size, int) else size for size in shape])
                for shape in shapes
            ]

        def supports_format_combination(self, place: int, tensors: Sequence[Any], _: int) -> bool:
            found = tensors[place].desc
            if found.format != library.TensorFormat.LINEAR:
                return False
            if kinds[place] == "element":
                return found.type == tensors[0].desc.type and found.type.name in ELEMENT_NAMES
            return bool(found.type == _type(library, kinds[place]))

        def configure_plugin(self, inputs: Sequence[Any], _: Sequence[Any]) -> None:
            kernel.checked_work([tuple(tensor.max) for tensor in inputs], self.attributes)

        def get_workspace_size(self, *_: Any) -> int:
            return 0

        def get_valid_tactics(self) -> list[int]:
            return []

        def set_tactic(self, _tactic: int) -> None:
            """Does nothing: there is one tactic."""

        def on_shape_change(self, *_: Any) -> None:
            """Does nothing: sizes are read at each launch."""

        def attach_to_context(self, _context: Any) -> Any:
            return self.clone()

        def enqueue(
            self,
            described: Sequence[Any],
            _described_outputs: Sequence[Any],
            inputs: Sequence[int],
            outputs: Sequence[int],
            _workspace: int,
            stream: int,
        ) -> None:
            from hbi_engines.cuda.launch import launch

            work = kernel.checked_work([tuple(tensor.dims) for tensor in described[:num_inputs]], self.attributes)
            launch(kernel, ELEMENT_NAMES[described[0].type.name], work, [*inputs, *outputs], stream)

    return Plugin


def _type(library: Any, kind: Kind) -> Any:
    return getattr(library.DataType, KIND_NAMES[kind])


def require_plugins(used: Sequence[PluginUse], wanted: set[str]) -> None:
    """Refuses a network in which a node was read through its function, though its plugin was asked for.

    TensorRT does so silently where the name, the version or the namespace differ.

    Raises:
        EngineError: There is such a node; the message names it.
    """
    if missing := sorted(wanted - {plugin.name for plugin in used if plugin.namespace == NAMESPACE}):
        raise EngineError(
            f"TensorRT read {', '.join(missing)} through their functions, not through the plugins that were asked for: "
            "build with --no-plugins, or install another release of TensorRT"
        )
