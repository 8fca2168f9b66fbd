"""The TensorRT backend as far as a machine has it: all of it needs a GPU but the refusals."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbi_engines.cuda.driver import driver_problem, driver_versions, visible_gpus
from hbi_engines.engine_files import FLAVORS, Flavor
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.registry import RUNTIMES, open_engine
from hbi_engines.tensorrt.flavor import compute_capabilities, import_flavor
from hbi_engines.tensorrt.runtime import problem
from hbi_engines.tensorrt.trial import build_doubling, try_tensorrt
from hbi_export.options import BuildOptions
from hbi_export.tensorrt.build import build_engines
from hbi_infer import HBI
from tests.builders.gpu import require_gpu
from tests.builders.tiny_bundle import COLOURS, FRAMES, SAMPLING, write_tiny_bundle

RTX = FLAVORS["tensorrt-rtx"]
INSTALLED = {name: importlib.util.find_spec(flavor.module) is not None for name, flavor in FLAVORS.items()}
DEVICES = [device for device in RUNTIMES if device.startswith("tensorrt")]


def test_every_precision_of_both_flavours_is_a_device() -> None:
    assert [f"{flavor}{part}" for flavor in FLAVORS for part in ("", ":fp16", ":bf16")] == DEVICES


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_that_cannot_run_says_what_is_missing(tmp_path: Path, device: str) -> None:
    flavor = FLAVORS[device.partition(":")[0]]
    if not (reason := problem(flavor)):
        pytest.skip(f"{device} can run here")
    missing = driver_problem() if INSTALLED[flavor.device] else f'pip install "hbi-infer[{flavor.option}]"'
    assert missing in reason
    with pytest.raises(DeviceError) as caught:
        HBI.load(write_tiny_bundle(tmp_path / "tiny"), device=device)
    assert str(caught.value) == f"device {device} cannot run here: {reason}"


def test_a_module_without_contents_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow_tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="hollow_tensorrt is installed without contents: pip uninstall"):
        import_flavor(Flavor("tensorrt", "hollow_tensorrt", "tensorrt", ""))
    with pytest.raises(DeviceError, match=r"absent_tensorrt cannot be imported .*; pip install .hbi-infer\[rtx\]"):
        import_flavor(Flavor("tensorrt-rtx", "absent_tensorrt", "rtx", ""))


def test_without_a_driver_there_are_no_gpus() -> None:
    if driver_problem():
        assert visible_gpus() == []
        assert "libcuda.so.1" in driver_problem() or "finds no GPU" in driver_problem()
    else:
        assert all(gpu.compute_capability.startswith("sm") for gpu in visible_gpus())
        assert "cuda" in driver_versions()


def test_memory_without_a_driver_is_a_clear_error() -> None:
    from hbi_engines.cuda.memory import CudaWorkspace

    if not driver_problem():
        workspace = CudaWorkspace()
        address = workspace.reserve("a", 100)
        assert workspace.reserve("a", 10) == address
        workspace.close()
        return
    with pytest.raises(EngineError, match=r"CUDA's cudaStreamCreateWithFlags failed: .*; see 'hbi-infer doctor'"):
        CudaWorkspace()


def test_the_network_of_the_trial_builds_without_a_gpu() -> None:
    library = import_flavor(RTX)
    assert {"sm80", "sm89", "sm120"} <= set(compute_capabilities(library))
    assert len(build_doubling(library, "sm89")) > 10_000


@pytest.mark.gpu
@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=list(FLAVORS))
def test_the_trial_runs(flavor: Flavor) -> None:
    require_gpu(problem(flavor))
    try_tensorrt(flavor)


class Borrowed:
    """An array of the GPU, of a buffer that stays with its owner."""

    def __init__(self, address: int, array: np.ndarray) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address, False),
            "version": 3,
        }


@pytest.mark.gpu
@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=list(FLAVORS))
def test_engines_of_a_bundle_give_what_onnx_runtime_gives(tmp_path: Path, flavor: Flavor) -> None:
    """One size after another, each more than once: buffers grow, and CUDA graphs are captured and dropped."""
    require_gpu(problem(flavor))
    from hbi_engines.cuda.memory import CudaWorkspace

    bundle = write_tiny_bundle(tmp_path / "tiny")
    _, failures = build_engines(bundle, BuildOptions(flavor=flavor.option))  # type: ignore[arg-type]
    assert not failures
    hbi, reference = HBI.load(bundle, device=flavor.device), HBI.load(bundle, device="cpu")
    rng = np.random.default_rng(0)
    for num_clips in (1, 1, 1, 5, 5, 5, 2, 2, 1):
        frames = np.zeros((num_clips, FRAMES, SAMPLING.image_size, SAMPLING.image_size, 3), np.uint8)
        for clip, colour in zip(frames, rng.choice(list(COLOURS), num_clips), strict=True):
            clip[:] = COLOURS[str(colour)]
        mask = np.ones((num_clips, FRAMES), np.bool_)
        found, expected = hbi.encode_video(frames, mask), reference.encode_video(frames, mask)
        for name, level in expected.items():
            np.testing.assert_allclose(found[name].tokens, level.tokens, atol=1e-2)
    assert HBI.load(bundle).device_reason.startswith(flavor.device), "what was built is what auto takes"
    with pytest.raises(DeviceError, match="asked for is fp16; build one with: hbi-export trt"):
        HBI.load(bundle, device=f"{flavor.device}:fp16").encode_text(["red"])
    with pytest.raises(EngineError, match="batch is 65 in frames; the engine was built for 1 to 64"):
        hbi.encode_video(np.repeat(frames, 65, 0), np.repeat(mask, 65, 0))
    workspace = CudaWorkspace()
    borrowed = {}
    for name, array in (("frames", frames), ("frame_mask", mask)):
        borrowed[name] = Borrowed(workspace.reserve(name, array.nbytes), array)
        workspace.write(name, array)
    workspace.synchronize()
    found_again = hbi._video_encoder.run(borrowed)
    np.testing.assert_array_equal(found_again["entity_tokens"], found["entity"].tokens)
    workspace.close()


@pytest.mark.gpu
def test_a_graph_without_its_bundle_has_no_engine() -> None:
    require_gpu(problem(RTX))
    with pytest.raises(DeviceError, match="this graph comes without a bundle: open the bundle, or choose device cuda"):
        open_engine(b"", "tensorrt-rtx")
