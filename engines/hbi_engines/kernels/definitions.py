"""Declares the CUDA kernels of the nodes `hbi::BanzhafInteraction`, `hbi::TokenMerge` and `hbi::TokenSimilarity`.

Each has inputs, outputs, sizes of its launch, and a text, which NVRTC compiles for a GPU that need not be here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias

from hbi_engines.errors import DeviceError, EngineError

Element: TypeAlias = Literal["float32", "float16", "bfloat16"]
"""Element type of float tensors; kernels compute in float32 with all three."""
Kind: TypeAlias = Literal["element", "float32", "bool", "int64"]
"""Element type of a tensor; "element" is the one that the kernel is compiled for."""
Shapes: TypeAlias = Sequence[Sequence[Any]]
"""Shapes of tensors: numbers, or TensorRT's expressions where sizes are not known yet."""
Attributes: TypeAlias = Mapping[str, int | float]

ELEMENTS: tuple[Element, ...] = ("float32", "float16", "bfloat16")
COMPUTE_CAPABILITIES = ("sm80", "sm89", "sm90", "sm120")
"""GPUs that the tests compile for."""
THREADS = 128
"""Threads of a block."""
LARGEST_SHARED_BYTES = 99 * 1024
"""Shared memory that a block may have on every GPU of `COMPUTE_CAPABILITIES`."""
COMMON = "block.cuh"
PITCH = 33
NODES = 16
"""Constants of the kernels' texts, on which the size of their shared memory depends."""


@dataclass(frozen=True)
class Work:
    """Sizes of a launch.

    Attributes:
        grid: Blocks along x and y.
        shared_floats: Size of a block's shared memory in floats.
        scalars: Arguments of the kernel behind the tensors' addresses.
    """

    grid: tuple[int, int]
    shared_floats: int
    scalars: tuple[int | float, ...]

    @property
    def shared_bytes(self) -> int:
        """Size of a block's shared memory."""
        return 4 * self.shared_floats


@dataclass(frozen=True, eq=False)
class Kernel:
    """Kernel of a node.

    Attributes:
        node: Name of the node in the domain `hbi`.
        entry: Name of the function; its text is `kernels/<entry>.cu`.
        attributes: Attributes of the node, with their defaults.
        inputs: Name -> kind, in the order of node and kernel.
        outputs: Name -> kind of the results, whose addresses follow the inputs'.
        output_shapes: Function from shapes of the inputs and attributes to shapes of the outputs.
        work: Function from shapes of the inputs and attributes to the sizes of the launch.
    """

    node: str
    entry: str
    attributes: Attributes
    inputs: Mapping[str, Kind]
    outputs: Mapping[str, Kind]
    output_shapes: Callable[[Shapes, Attributes], list[list[Any]]]
    work: Callable[[Shapes, Attributes], Work]

    def text(self) -> str:
        """Returns the CUDA C++ of the kernel as one file."""
        folder = resources.files("hbi_engines.kernels")
        return "\n".join((folder / name).read_text(encoding="utf-8") for name in (COMMON, f"{self.entry}.cu"))

    def checked_work(self, shapes: Shapes, attributes: Attributes) -> Work:
        """Returns the sizes of the launch.

        Raises:
            EngineError: A block would need more shared memory than GPUs have.
        """
        work = self.work(shapes, attributes)
        if work.shared_bytes > LARGEST_SHARED_BYTES:
            given = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(self.inputs, shapes, strict=True))
            raise EngineError(
                f"the kernel of hbi::{self.node} would need {work.shared_bytes} bytes of shared memory for {given}, "
                f"and GPUs have {LARGEST_SHARED_BYTES}: build the engine with --no-plugins"
            )
        return work

    def c_arguments(self, addresses: Sequence[int], work: Work) -> list[Any]:
        """Returns the kernel's arguments for C: addresses of inputs and outputs, then the scalars."""
        scalars = [ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value) for value in work.scalars]
        return [*map(ctypes.c_void_p, addresses), *scalars]


def _interaction_work(shapes: Shapes, attributes: Attributes) -> Work:
    batch, words, frames = shapes[0]
    most = max(words, frames)
    floats = 3 * words * frames + most * most + words + frames + NODES * (2 * most + 1)
    return Work((batch, 1), floats, (words, frames, float(attributes["probability"])))


BANZHAF_INTERACTION = Kernel(
    node="BanzhafInteraction",
    entry="banzhaf_interaction",
    attributes={"probability": 0.5},
    inputs={
        "similarity": "element",
        "text_weights": "element",
        "video_weights": "element",
        "text_mask": "bool",
        "video_mask": "bool",
    },
    outputs={"interaction": "element"},
    output_shapes=lambda shapes, _: [list(shapes[0])],
    work=_interaction_work,
)


def _merge_shapes(shapes: Shapes, attributes: Attributes) -> list[list[Any]]:
    batch, tokens, width = shapes[0]
    slots = attributes["num_slots"]
    return [[batch, slots, width], [batch, slots], [batch, tokens], [batch, tokens]]


def _merge_work(shapes: Shapes, attributes: Attributes) -> Work:
    batch, tokens, width = shapes[0]
    slots, neighbours = int(attributes["num_slots"]), int(attributes["neighbours"])
    floats = tokens * tokens + tokens * (PITCH + 7) + slots
    return Work((batch, 1), floats, (tokens, width, slots, float(attributes["ratio"]), neighbours))


TOKEN_MERGE = Kernel(
    node="TokenMerge",
    entry="token_merge",
    attributes={"num_slots": 1, "ratio": 0.5, "neighbours": 3},
    inputs={"tokens": "element", "score": "float32", "mask": "bool"},
    outputs={"merged": "element", "cluster_mask": "bool", "slots": "int64", "bias": "float32"},
    output_shapes=_merge_shapes,
    work=_merge_work,
)


def _similarity_work(shapes: Shapes, attributes: Attributes) -> Work:
    (texts, words, width), (clips, frames, _) = shapes[0], shapes[2]
    floats = words * frames + (words + frames) * (PITCH + 2)
    return Work((clips, texts), floats, (clips, words, frames, width, int(attributes["padding_is_zero"])))


TOKEN_SIMILARITY = Kernel(
    node="TokenSimilarity",
    entry="token_similarity",
    attributes={"padding_is_zero": 0},
    inputs={
        "text_tokens": "element",
        "text_weights": "element",
        "video_tokens": "element",
        "video_weights": "element",
    },
    outputs={"scores": "float32"},
    output_shapes=lambda shapes, _: [[shapes[0][0], shapes[2][0]]],
    work=_similarity_work,
)

KERNELS = {kernel.node: kernel for kernel in (BANZHAF_INTERACTION, TOKEN_MERGE, TOKEN_SIMILARITY)}


def compiler_problem(extra: str) -> str:
    """Returns why NVRTC cannot compile kernels here and how to mend it; empty if it can.

    Args:
        extra: Extra of this package that installs NVRTC.
    """
    try:
        compile_kernel(TOKEN_SIMILARITY, "float32", COMPUTE_CAPABILITIES[0])
    except DeviceError as error:
        return f'{error}; pip install --force-reinstall "hbi-infer[{extra}]"'
    except EngineError as error:
        return str(error)
    return ""


@cache
def compile_kernel(kernel: Kernel, element: Element, compute_capability: str) -> bytes:
    """Compiles a kernel to machine code (a cubin) for a GPU that need not be here.

    Args:
        kernel: The kernel.
        element: Element type of its float tensors.
        compute_capability: Compute capability of the GPU, such as "sm89".

    Raises:
        DeviceError: NVRTC, the compiler, is not installed or cannot be loaded.
        EngineError: NVRTC refused the text.
    """
    nvrtc = _import_nvrtc()
    name = f"{kernel.entry}.cu".encode()
    program = _checked(nvrtc, nvrtc.nvrtcCreateProgram, kernel.text().encode(), name, 0, [], [])
    try:
        architecture = f"--gpu-architecture=sm_{compute_capability.removeprefix('sm')}"
        options = [architecture.encode(), f"-DHBI_ELEMENT={ELEMENTS.index(element)}".encode()]
        try:
            _checked(nvrtc, nvrtc.nvrtcCompileProgram, program, len(options), options)
        except EngineError as error:
            said = bytearray(_checked(nvrtc, nvrtc.nvrtcGetProgramLogSize, program))
            _checked(nvrtc, nvrtc.nvrtcGetProgramLog, program, said)
            text = " ".join(said.decode(errors="replace").strip("\0").split())
            raise EngineError(
                f"{error} on {kernel.entry}.cu for {compute_capability}, which the installed nvidia-cuda-nvrtc may not "
                f"know: {text or 'it gave no reason'}"
            ) from error
        cubin = bytearray(_checked(nvrtc, nvrtc.nvrtcGetCUBINSize, program))
        _checked(nvrtc, nvrtc.nvrtcGetCUBIN, program, cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin)


def _import_nvrtc() -> Any:
    """Imports the bindings of NVRTC and loads its library.

    Raises:
        DeviceError: One of the two cannot be loaded.
    """
    try:
        from cuda.bindings import nvrtc

        _checked(nvrtc, nvrtc.nvrtcVersion)
    except Exception as error:  # the bindings raise many kinds where the library is missing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DeviceError(f"NVRTC, which compiles the plugins' kernels, cannot be loaded ({reason})") from error
    return nvrtc


def _checked(nvrtc: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of NVRTC and returns its result without the status.

    Raises:
        EngineError: The call failed.
    """
    status, *results = function(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise EngineError(f"{function.__name__} of NVRTC failed ({status.name})")
    return results[0] if results else None
