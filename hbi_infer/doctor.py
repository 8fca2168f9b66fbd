"""The diagnosis of an installation: parts, devices that really run a graph, plugins that register, and cures.

Each device is tried in a process of its own, which has a time limit: a runtime that does not fit its driver may hang,
or end its process without a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hbi_engines import onnx_runtime
from hbi_engines.cuda.driver import driver_problem, driver_versions, visible_gpus
from hbi_engines.engine_files import FLAVORS
from hbi_engines.operating_system import limit_memory
from hbi_engines.registry import check_device
from hbi_infer import __version__
from hbi_infer.catalog.catalog import our_catalog
from hbi_infer.errors import DeviceError, EngineError, HBIError
from hbi_infer.model.bundle import Bundle
from hbi_infer.render.text_table import aligned
from hbi_infer.video.pool import usual_memory_bytes
from hbi_infer.video.sandbox import can_confine, confine
from hbi_infer.worker_process import Answer, Tell, WorkerDiedError, run_job

MODULES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime",
    "openvino": "openvino",
    "openvino:bf16": "openvino",
    **{flavor.device: flavor.module for flavor in FLAVORS.values()},
}
"""Device -> the module that runs it; TensorRT's precisions are one device to try."""
TIME_LIMIT_SECONDS = 120.0
SENTENCE = "a red circle moves left"
TOLERANCE = 1e-4
"""Largest error of weights and exact interactions, which are below 1, in float32."""


@dataclass(frozen=True)
class Part:
    """Something that is or is not installed.

    Attributes:
        name: Name for people.
        version: Version; empty if it is not there.
        remark: Further information.
    """

    name: str
    version: str
    remark: str = ""


@dataclass(frozen=True)
class DeviceTrial:
    """The outcome of running a small graph on a device.

    Attributes:
        device: Name of the device, as in `--device`.
        status: "works"; "cannot": it is not installed, or what it needs is not in this machine; "fails": it should run.
        remark: Time that it took, or the fault and its cure.
    """

    device: str
    status: Literal["works", "cannot", "fails"]
    remark: str


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `examine`.

    Attributes:
        parts: Software and hardware, installed or not.
        devices: Outcome for each device.
        plugins: Whether each TensorRT takes our plugins; it "works" where they register, for no engine is run.
        problems: Faults of installed parts, each with its cure.
    """

    parts: tuple[Part, ...]
    devices: tuple[DeviceTrial, ...]
    plugins: tuple[DeviceTrial, ...]
    problems: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return {"healthy": not self.problems, **asdict(self)}

    def to_text(self) -> str:
        """Returns tables of parts and devices, and a line for each problem."""
        works = {"works": "yes", "cannot": "no", "fails": "FAILS"}
        parts = [(part.name, part.version or "-", part.remark) for part in self.parts]
        devices, plugins = (
            [(trial.device, works[trial.status], trial.remark) for trial in trials]
            for trials in (self.devices, self.plugins)
        )
        problems = [f"problem: {problem}" for problem in self.problems] or ["what is installed works"]
        tables = (
            aligned(("part", "version", ""), parts, text_columns=2),
            aligned(("device", "works", ""), devices, text_columns=2),
            aligned(("plugins of", "register", ""), plugins, text_columns=2),
        )
        return "\n".join([*(line for table in tables for line in (*table, "")), *problems, ""])


def examine(time_limit_seconds: float = TIME_LIMIT_SECONDS) -> Diagnosis:
    """Looks at all parts and tries every device, each for at most the time limit."""
    trials = tuple(try_device(device, time_limit_seconds) for device in MODULES)
    plugins = tuple(try_plugins(device, time_limit_seconds) for device in FLAVORS)
    problems = [f"device {trial.device}: {trial.remark}" for trial in trials if trial.status == "fails"]
    problems += [f"plugins of {trial.device}: {trial.remark}" for trial in plugins if trial.status == "fails"]
    if wheels := onnx_runtime.wheels_problem():
        problems.append(wheels)
    if (problem := _import_problem("av")) or (problem := _import_problem("tokenizers")):
        problems.append(f"{problem}; pip install --force-reinstall hbi-infer")
    default, problem = default_model_part()
    if problem:
        problems.append(problem)
    if not any(trial.status == "works" for trial in trials):
        problems.append(f"no device can run a model: {onnx_runtime.CHOOSE}")
    parts = (*_parts(), sandbox_part(time_limit_seconds), default)
    return Diagnosis(parts, trials, plugins, tuple(problems))


def try_device(device: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> DeviceTrial:
    """Runs a small graph on a device, in another process."""
    return _try_apart(device, {"device": device}, time_limit_seconds)


def try_plugins(device: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> DeviceTrial:
    """Registers our plugins with a TensorRT, in another process: its libraries may clash."""
    return _try_apart(device, {"plugins_of": device}, time_limit_seconds)


def sandbox_part(time_limit_seconds: float = TIME_LIMIT_SECONDS) -> Part:
    """Confines another process as decoders are, which then tries to open a file; returns the fences that stand."""
    name = "decoding sandbox"
    if not can_confine():
        return Part(name, "", "only Linux has one")
    try:
        found = run_job(__name__, {"confine": True}, silence_seconds=time_limit_seconds)
    except WorkerDiedError as died:
        return Part(name, "", f"a process that was confined died {died}")
    if not found["is_refused"]:
        return Part(name, "", f"files can be opened: the kernel has neither seccomp nor Landlock; {found['fences']}")
    return Part(name, "on", str(found["fences"]))


def _try_apart(device: str, job: dict[str, Any], time_limit_seconds: float) -> DeviceTrial:
    """Has a process of its own do a job."""
    try:
        return DeviceTrial(device, **run_job(__name__, job, silence_seconds=time_limit_seconds))
    except WorkerDiedError as died:
        remark = f"its process died {died}; install {MODULES[device]} anew"
        if died.was_silent:
            remark = f"it was not done within {time_limit_seconds:g} s; nvidia-smi or dmesg may say more"
        return DeviceTrial(device, "fails", remark)


def work(job: dict[str, Any], _content: bytes, _tell: Tell) -> Answer:
    """Tries a device, TensorRT's plugins or the sandbox of decoders, as a job of `hbi_infer.worker_process`."""
    if "confine" in job:
        return Answer(_confine_here())
    if "plugins_of" in job:
        return Answer(_register_here(job["plugins_of"]))
    return Answer(_try_here(job["device"]))


def _confine_here() -> dict[str, Any]:
    """Confines this process; returns its fences, and whether it is refused a file that it could read before."""
    limit_memory(usual_memory_bytes(1))
    fences = confine(cpu_seconds=TIME_LIMIT_SECONDS)
    try:
        os.close(os.open(__file__, os.O_RDONLY))
    except OSError:
        return {"fences": fences.in_words(), "is_refused": True}
    return {"fences": fences.in_words(), "is_refused": False}


def _register_here(device: str) -> dict[str, str]:
    """Registers a TensorRT's plugins in this process; returns status and remark."""
    from hbi_engines.tensorrt.plugins import PLUGINS, plugins_problem

    if problem := plugins_problem(FLAVORS[device]):
        installed = importlib.util.find_spec(MODULES[device]) is not None
        return {"status": "fails" if installed else "cannot", "remark": problem}
    return {"status": "works", "remark": ", ".join(map(str, PLUGINS))}


def _try_here(device: str) -> dict[str, str]:
    """Tries a device in this process; returns status and remark."""
    try:
        check_device(device)
        started = time.perf_counter()
        if device in FLAVORS:
            from hbi_engines.tensorrt.trial import try_tensorrt

            try_tensorrt(FLAVORS[device])
        else:
            _run_embedded_model(device)
    except DeviceError as error:
        reason = str(error).removeprefix(f"device {device} cannot run here: ")
        return {"status": "fails" if _ought_to_run(device) else "cannot", "remark": reason}
    except HBIError as error:
        return {"status": "fails", "remark": str(error)}
    return {"status": "works", "remark": f"small graphs are right, {time.perf_counter() - started:.2f} s with loading"}


def _ought_to_run(device: str) -> bool:
    """Returns whether a device that does not run has its software and hardware."""
    if importlib.util.find_spec(MODULES[device]) is None or device == "openvino:bf16":
        return False
    if device == "cuda" and len(onnx_runtime.installed_wheels()) == 1 and not onnx_runtime.has_cuda():
        return False  # the package for the processor was chosen
    return device in ("cpu", "openvino") or not driver_problem()


def _run_embedded_model(device: str) -> None:
    """Runs two graphs of the embedded model: a network, and a formula that NumPy computes too.

    Raises:
        EngineError: Their results are wrong.
    """
    import numpy as np

    from hbi_infer.model.token_model import TokenModel
    from hbi_infer.tokens.banzhaf import banzhaf_interaction
    from hbi_infer.tokens.levels import LevelTokens, unit

    hbi = TokenModel.load(device=device, threads=1)
    rng = np.random.default_rng(0)
    text = hbi.encode_text([SENTENCE])
    video = {
        level.name: LevelTokens(
            rng.normal(size=(1, level.video_tokens, hbi.bundle.manifest.width)).astype(np.float32),
            rng.uniform(0.1, 1.0, (1, level.video_tokens)).astype(np.float32),
        )
        for level in hbi.bundle.manifest.levels
    }
    found = hbi.interaction(text, video)
    for name, level in text.items():
        off = abs(float(level.weights.sum()) - 1)  # the weights of a level sum to 1
        cosines = unit(level.tokens) @ unit(video[name].tokens).transpose(0, 2, 1)
        expected = banzhaf_interaction(cosines, level.weights, video[name].weights, level.weights > 0)
        if not max(off, float(np.abs(found[name] - expected).max())) <= TOLERANCE:
            raise EngineError(f"its results are wrong; install another version of {MODULES[device]}")


def _parts() -> Iterator[Part]:
    yield Part("Python", platform.python_version(), sys.executable)
    yield Part("hbi-infer", __version__)
    yield Part("PyAV", _version("av"))
    yield Part("FFmpeg", _ffmpeg())
    wheels = onnx_runtime.installed_wheels()
    yield Part("ONNX Runtime", " and ".join(wheels.values()), " and ".join(wheels))
    yield Part("OpenVINO", _version("openvino"))
    yield Part("TensorRT", _version("tensorrt"))
    yield Part("TensorRT-RTX", _version("tensorrt_rtx"))
    yield Part("cuda-bindings", _version("cuda"))
    yield Part("NVRTC", _library_version("nvrtc", ("13", "12"), _nvrtc))
    versions = driver_versions()
    yield Part("NVIDIA driver", versions.get("driver", ""), driver_problem())
    yield Part("CUDA", _library_version("cudart", ("13", "12"), _cudart), _newest_cuda(versions))
    yield Part("cuDNN", _library_version("cudnn", ("9",), _cudnn))
    for number, gpu in enumerate(visible_gpus()):
        yield Part(f"GPU {number}", gpu.compute_capability, f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB")


def default_model_part() -> tuple[Part, str]:
    """Returns the model that is meant where none is given, and what is wrong with it; nothing is downloaded."""
    try:
        default, path = our_catalog().default_at_hand()
        if path is None:
            return Part("default model", default.name, "not on this machine: hbi-infer models get"), ""
        Bundle.load(path)
    except HBIError as error:
        return Part("default model", ""), f"default model: {error}"
    remark = f"{path}, as {default.source} says" if default.source else "embedded"
    return Part("default model", default.name, remark), ""


def _version(module: str) -> str:
    """Returns the version of the package that installs a module; empty if none does."""
    names = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(names[0]) if names else ""


def _ffmpeg() -> str:
    try:
        import av
    except (ImportError, OSError):
        return ""
    return str(av.ffmpeg_version_info)


def _import_problem(module: str) -> str:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return f"{module} cannot be imported ({error})"
    return ""


def _newest_cuda(versions: dict[str, str]) -> str:
    return f"the driver runs up to {versions['cuda']}" if "cuda" in versions else ""


def _library_version(name: str, majors: tuple[str, ...], ask: Callable[[ctypes.CDLL], str]) -> str:
    """Returns the version of a library of NVIDIA that pip installed or the loader finds; empty if there is none."""
    package = next((part for part in importlib.metadata.distributions() if _is_nvidias(part, name)), None)
    if package is not None:
        return package.version
    for major in majors:
        with contextlib.suppress(OSError):
            return ask(ctypes.CDLL(f"lib{name}.so.{major}"))
    return ""


def _is_nvidias(package: importlib.metadata.Distribution, name: str) -> bool:
    names = {"cudart": "nvidia-cuda-runtime", "cudnn": "nvidia-cudnn", "nvrtc": "nvidia-cuda-nvrtc"}
    return str(package.metadata["Name"]).startswith(names[name])


def _cudart(library: ctypes.CDLL) -> str:
    version = ctypes.c_int(0)
    library.cudaRuntimeGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _nvrtc(library: ctypes.CDLL) -> str:
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def _cudnn(library: ctypes.CDLL) -> str:
    library.cudnnGetVersion.restype = ctypes.c_size_t
    version = int(library.cudnnGetVersion())
    return f"{version // 10000}.{version % 10000 // 100}.{version % 100}"
