"""Plugins of TensorRT as far as they go without a GPU, and a clear error where one of their libraries is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hbi_engines.cuda.driver import driver_problem
from hbi_engines.engine_files import FLAVORS, PluginUse
from hbi_engines.errors import EngineError
from hbi_engines.kernels.definitions import ELEMENTS, KERNELS, TOKEN_MERGE, Element, Kernel
from hbi_engines.tensorrt.plugins import NAMESPACE, PLUGINS, VERSION, require_plugins
from tests.builders.gpu import require_gpu
from tests.builders.kernel_games import Arrays, assert_close, expected, in_element
from tests.builders.kernel_host import bits_of, from_bits, to_bits
from tests.engines.kernels.test_definitions import CASES, name_of

RTX = FLAVORS["tensorrt-rtx"]
REGISTER = """
from hbi_engines.engine_files import FLAVORS
from hbi_engines.tensorrt.plugins import plugins_problem, register_plugins
print(plugins_problem(FLAVORS["tensorrt-rtx"]))
"""
"""What every test here runs in a process of its own: a plugin stays registered, and a library loaded, to the end."""


def run(code: str, *before: Path) -> str:
    """What some Python prints, with folders in front of all packages."""
    paths = [*map(str, before), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOOK = """
import numpy as np
import tensorrt_rtx
registry = tensorrt_rtx.get_plugin_registry()
for name in ("BanzhafInteraction", "TokenMerge", "TokenSimilarity"):
    creator = registry.get_creator(name, "1", "hbi")
    fields = tensorrt_rtx.PluginFieldCollection([])
    plugin = creator.create_plugin(name, fields, tensorrt_rtx.TensorRTPhase.BUILD)
    held = {field.name: np.asarray(field.data).ravel()[0].item() for field in plugin.get_fields_to_serialize()}
    print(name, plugin.num_outputs, held, plugin.clone().attributes == plugin.attributes)
print(registry.get_creator("TokenMerge", "2", "hbi"), registry.get_creator("TokenMerge", "1", ""))
"""


def test_plugins_register_once_and_hold_their_attributes() -> None:
    again = "assert register_plugins(FLAVORS['tensorrt-rtx']) is register_plugins(FLAVORS['tensorrt-rtx'])"
    printed = run(REGISTER + again + LOOK)
    assert printed.splitlines() == [
        "BanzhafInteraction 1 {'probability': 0.5} True",
        "TokenMerge 4 {'num_slots': 1, 'ratio': 0.5, 'neighbours': 3} True",
        "TokenSimilarity 1 {'padding_is_zero': 0} True",
        "None None",
    ]


def test_a_compiler_that_cannot_be_loaded_is_an_error_with_the_cure(tmp_path: Path) -> None:
    bindings = tmp_path / "cuda" / "bindings"
    bindings.mkdir(parents=True)
    for folder in (bindings, bindings.parent):
        (folder / "__init__.py").touch()
    (bindings / "nvrtc.py").write_text("raise RuntimeError('libnvrtc.so.13 is damaged')\n")
    problem = run(REGISTER, tmp_path)
    assert problem == (
        "the plugins cannot be used: NVRTC, which compiles the plugins' kernels, cannot be loaded (libnvrtc.so.13 is "
        'damaged); pip install --force-reinstall "hbi-infer[rtx]"; or build engines with --no-plugins'
    )


@pytest.mark.parametrize("damage", ["empty", "absent"])
def test_a_library_that_cannot_be_loaded_is_an_error_with_the_cure(tmp_path: Path, damage: str) -> None:
    libraries = tmp_path / "tensorrt_rtx_libs"
    libraries.mkdir()
    (libraries / "__init__.py").touch()
    if damage == "empty":
        (libraries / "libtensorrt_rtx.so.1").touch()
    problem = run(REGISTER, tmp_path)
    assert problem.startswith(f"a library that plugins need cannot be loaded: {libraries / 'libtensorrt_rtx.so.1'} (")
    assert problem.endswith('pip install --force-reinstall "hbi-infer[rtx]", or build engines with --no-plugins')


def test_a_node_that_was_read_through_its_function_is_found() -> None:
    merge = PluginUse("TokenMerge", VERSION, NAMESPACE)
    assert merge in PLUGINS
    require_plugins([merge], {"TokenMerge"})
    require_plugins([], set())
    for used in ([], [PluginUse("TokenMerge", VERSION, "another")]):
        with pytest.raises(EngineError, match="read BanzhafInteraction, TokenMerge through their functions"):
            require_plugins(used, {"TokenMerge", "BanzhafInteraction"})


def test_what_plugins_say_of_themselves() -> None:
    assert [plugin.name for plugin in PLUGINS] == list(KERNELS)
    assert TOKEN_MERGE.output_shapes([["b", "n", "d"], ["b", "n"], ["b", "n"]], {"num_slots": 4}) == [
        ["b", 4, "d"],
        ["b", 4],
        ["b", "n"],
        ["b", "n"],
    ]


def run_on_gpu(kernel: Kernel, element: Element, inputs: Arrays, **attributes: int | float) -> Arrays:
    """What `run_on_host` does, on a GPU."""
    from hbi_engines.cuda.launch import launch
    from hbi_engines.cuda.memory import CudaWorkspace

    workspace = CudaWorkspace()
    known = {**kernel.attributes, **attributes}
    shapes = [inputs[name].shape for name in kernel.inputs]
    outputs = {
        name: np.empty(shape, bits_of(element, kind))
        for (name, kind), shape in zip(kernel.outputs.items(), kernel.output_shapes(shapes, known), strict=True)
    }
    addresses = []
    for name, kind in kernel.inputs.items():
        array = to_bits(np.ascontiguousarray(inputs[name]), element, kind)
        addresses.append(workspace.reserve(name, array.nbytes))
        workspace.write(name, array)
    addresses += [workspace.reserve(f"made {name}", array.nbytes) for name, array in outputs.items()]
    launch(kernel, element, kernel.checked_work(shapes, known), addresses, workspace.stream)
    for name, array in outputs.items():
        workspace.read(f"made {name}", array)
    workspace.synchronize()
    workspace.close()
    return {name: from_bits(array, element, kernel.outputs[name]) for name, array in outputs.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("kernel", "inputs", "attributes"), CASES, ids=name_of)
def test_kernels_compute_on_a_gpu_what_numpy_does(
    kernel: Kernel, inputs: Arrays, attributes: dict[str, float], element: Element
) -> None:
    require_gpu(driver_problem())
    given = in_element(kernel, inputs, element)
    found = run_on_gpu(kernel, element, given, **attributes)
    assert_close(kernel, found, expected(kernel, given, **attributes), element)
