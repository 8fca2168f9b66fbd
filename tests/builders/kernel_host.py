"""Runs the text of a CUDA kernel on the processor: gcc compiles it, and one thread plays all threads of a block."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_engines.kernels.definitions import ELEMENTS, Element, Kernel

Arrays = dict[str, npt.NDArray[Any]]
HOST = Path(__file__).with_name("kernel_host.h")
FAULTS = {1: "not all threads of a block come to a barrier", 2: "it writes beyond its shared memory"}


@cache
def compiled_for_host(kernel: Kernel, element: Element) -> ctypes.CDLL:
    """A library with the kernel's launch."""
    folder = Path(tempfile.mkdtemp())
    (folder / "kernel.cu").write_text(kernel.text())
    (folder / "kernel.cc").write_text(
        f'#define KERNEL_TEXT <kernel.cu>\n#define KERNEL_NAME {kernel.entry}\n#include "{HOST}"\n'
    )
    options = [
        f"-DHBI_ELEMENT={ELEMENTS.index(element)}",
        "-std=c++17",
        "-O1",
        "-fno-strict-aliasing",
        "-I.",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    command = ["g++", *options, "-ffp-contract=off", "-fPIC", "-shared", "kernel.cc", "-o", "kernel.so"]
    subprocess.run(command, check=True, cwd=folder)
    return ctypes.CDLL(str(folder / "kernel.so"))


def run_on_host(
    kernel: Kernel,
    element: Element,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    backwards: bool = False,
    threads: int = 7,
    **attributes: int | float,
) -> Arrays:
    """What a kernel makes of arrays; "element" arrays go in and come out as float32 and are rounded on the way.

    Args:
        kernel: Which one.
        element: What its tensors of floats hold.
        inputs: As the kernel names them.
        backwards: Whether a block's last thread runs first.
        threads: Of a block.
        attributes: Of the node.
    """
    given = [to_bits(np.ascontiguousarray(inputs[name]), element, kind) for name, kind in kernel.inputs.items()]
    known = {**kernel.attributes, **attributes}
    work = kernel.checked_work([array.shape for array in given], known)
    shapes = kernel.output_shapes([array.shape for array in given], known)
    made = [
        np.zeros(shape, bits_of(element, kind)) for shape, kind in zip(shapes, kernel.outputs.values(), strict=True)
    ]
    arguments = kernel.c_arguments([array.ctypes.data for array in (*given, *made)], work)
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
    library = compiled_for_host(kernel, element)
    fault = library.launch(*work.grid, threads, work.shared_bytes, int(backwards), pointers)
    assert fault == 0, FAULTS[fault]
    return {
        name: from_bits(array, element, kind) for (name, kind), array in zip(kernel.outputs.items(), made, strict=True)
    }


def bits_of(element: Element, kind: str) -> npt.DTypeLike:
    """How NumPy holds a tensor; it knows no bfloat16."""
    if kind != "element":
        return np.dtype(kind)
    return {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[element]


def to_bits(array: npt.NDArray[Any], element: Element, kind: str) -> npt.NDArray[Any]:
    """An array as the kernel reads it."""
    if kind == "element" and element == "bfloat16":
        wide = array.astype(np.float32).view(np.uint32)
        return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)
    return array.astype(bits_of(element, kind))


def from_bits(array: npt.NDArray[Any], element: Element, kind: str) -> npt.NDArray[Any]:
    """An array that the kernel wrote."""
    if kind != "element":
        return array
    if element == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def rounded(array: npt.NDArray[Any], element: Element) -> npt.NDArray[Any]:
    """What is left of an array in a type, as float32."""
    return from_bits(to_bits(np.ascontiguousarray(array), element, "element"), element, "element")
