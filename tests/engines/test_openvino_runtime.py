"""OpenVINO against ONNX Runtime, on the embedded model."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hbi_engines
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.openvino_runtime import problem
from hbi_engines.registry import open_engine
from hbi_infer import HBI
from hbi_infer.model.bundle import Bundle, default_bundle_path
from tests.engines.test_onnx_runtime import FRAMES, MASK, weighted_sum

ROUNDING = 3e-6
BFLOAT16 = 2e-2
"""Of the largest value of an output; eight bits of a number, through all layers."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(default_bundle_path())


def frames(bundle: Bundle) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sampling = bundle.manifest.sampling
    size, most = sampling.image_size, sampling.max_frames
    pictures = rng.integers(0, 256, (3, most, 1, 1, 3), dtype=np.uint8)
    mask = np.arange(most) < np.array([[1], [5], [most]])
    return {"frames": np.broadcast_to(pictures, (3, most, size, size, 3)).copy(), "frame_mask": mask}


def two_clips(hbi: HBI) -> dict[str, np.ndarray]:
    made = frames(hbi.bundle)
    return {"frames": made["frames"][:2], "mask": made["frame_mask"][:2]}


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_the_embedded_encoders_give_what_onnx_runtime_gives(bundle: Bundle) -> None:
    graph, inputs = bundle.graph_bytes("video_encoder"), frames(bundle)
    engine, reference = (open_engine(graph, device, threads=1) for device in ("openvino", "cpu"))
    assert engine.inputs == reference.inputs
    assert [(spec.name, spec.dtype) for spec in engine.outputs] == [(s.name, s.dtype) for s in reference.outputs]
    assert (engine.device, engine.device_reason) == ("openvino", "openvino (1 thread), as asked")
    found, expected = engine.run(inputs), reference.run(inputs)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        if array.dtype == np.float32:
            assert largest_difference(found[name], array) < ROUNDING, name
        else:
            np.testing.assert_array_equal(found[name], array)


def test_bfloat16_rounds_products_and_no_more(bundle: Bundle) -> None:
    if reason := problem("bf16"):
        with pytest.raises(DeviceError, match="does not compute in bfloat16"):
            open_engine(bundle.graph_bytes("video_encoder"), "openvino:bf16")
        pytest.skip(reason)
    inputs = frames(bundle)
    graph = bundle.graph_bytes("video_encoder")
    found, expected = (open_engine(graph, device, threads=1).run(inputs) for device in ("openvino:bf16", "cpu"))
    difference = largest_difference(found["entity_tokens"], expected["entity_tokens"])
    assert ROUNDING < difference < BFLOAT16
    np.testing.assert_allclose(found["event_weights"].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("device", ["openvino", "openvino:bf16"])
def test_the_interaction_stays_exact(device: str) -> None:
    """Its node is a function in the file, which OpenVINO does not know; and its formula bears no rounding."""
    if reason := problem("bf16" if device.endswith("bf16") else "fp32"):
        pytest.skip(reason)
    reference = HBI.load(device="cpu", threads=1)
    text, video = reference.encode_text(["a red circle", "a ring"]), reference.encode_video(**two_clips(reference))
    found = HBI.load(device=device, threads=1).interaction(text, video)
    expected = reference.interaction(text, video)
    assert max(np.abs(level).max() for level in expected.values()) > 0.01
    for name, level in expected.items():
        np.testing.assert_allclose(found[name], level, atol=1e-6)


def test_runs_a_file_and_arrays_that_are_views(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(weighted_sum())
    engine = open_engine(path, "openvino")
    result = engine.run({"frames": np.asfortranarray(FRAMES)[::-1], "mask": MASK[::-1]})["total"]
    np.testing.assert_array_equal(result, [[21, 24], [4, 6]])
    again = engine.run({"frames": FRAMES[:1], "mask": MASK[:1]})["total"]
    np.testing.assert_array_equal(again, [[4, 6]])
    np.testing.assert_array_equal(result, [[21, 24], [4, 6]])  # another run leaves results alone


def test_wrong_inputs_are_refused_by_name() -> None:
    engine = open_engine(weighted_sum(), "openvino")
    with pytest.raises(EngineError, match="F is 3 in frames and 2 in mask"):
        engine.run({"frames": FRAMES, "mask": MASK[:, :2]})
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run({"frames": FRAMES, "mask": MASK})


@pytest.mark.parametrize("graph", [b"", b"not a graph" * 10, weighted_sum()[:100]])
def test_a_damaged_graph_is_refused(graph: bytes) -> None:
    with pytest.raises(EngineError, match="OpenVINO refused the graph: "):
        open_engine(graph, "openvino")


def test_a_failure_inside_the_graph_is_mapped() -> None:
    model = onnx.load_from_string(weighted_sum())
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Reshape", ["sum", "size"], ["total"]))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [2], [1, 2]))  # fits B = 1 only
    engine = open_engine(model.SerializeToString(), "openvino")
    with pytest.raises(EngineError, match="OpenVINO failed while it ran the graph: "):
        engine.run({"frames": FRAMES, "mask": MASK})


def test_without_openvino_the_message_says_what_to_install(tmp_path: Path) -> None:
    packages = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (packages / name).exists():
            (tmp_path / name).symlink_to(packages / name)
    paths = [str(tmp_path), str(Path(hbi_engines.__file__).parent.parent)]
    script = (
        f"import sys; sys.path[:0] = {paths}; from hbi_engines.registry import check_device; check_device('openvino')"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("hbi_engines.errors.DeviceError: device openvino cannot run here: ")
    assert 'pip install "hbi-infer[openvino]"' in last_line


def test_threads_share_an_engine() -> None:
    model = HBI.load(device="openvino", threads=1)
    texts = ["a red circle", "a blue square blinks", "two big red rings move left"] * 8
    expected = [model.encode_text([text]) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: model.encode_text([text]), texts))
    for one, other in zip(found, expected, strict=True):
        for name, level in one.items():
            np.testing.assert_array_equal(level.tokens, other[name].tokens)
