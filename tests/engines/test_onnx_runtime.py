from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hbi_engines
from hbi_engines.engine import TensorSpec
from hbi_engines.errors import DeviceError, EngineError
from hbi_engines.onnx_runtime import cuda_problem
from hbi_engines.registry import open_engine
from tests.builders.gpu import require_gpu
from tests.builders.packages import write_package_record


def weighted_sum() -> bytes:
    """frames (B, F, 2) uint8 and mask (B, F) bool: the sum of the frames that the mask keeps, (B, 2) float32."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "values"], ["sum"]),
        helper.make_node("Squeeze", ["sum", "one"], ["total"]),
    ]
    graph = helper.make_graph(
        nodes,
        "weighted_sum",
        [
            helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", "F", 2]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["B", "F"]),
        ],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, ["B", 2])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


FRAMES = np.array([[[1, 2], [3, 4], [100, 100]], [[5, 6], [7, 8], [9, 10]]], np.uint8)


MASK = np.array([[True, True, False], [True, True, True]])


def test_runs_a_graph_from_bytes_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(weighted_sum())
    for graph in (weighted_sum(), path):
        engine = open_engine(graph, "cpu", threads=1)
        assert engine.inputs == (TensorSpec("frames", "uint8", ("B", "F", 2)), TensorSpec("mask", "bool", ("B", "F")))
        assert engine.outputs == (TensorSpec("total", "float32", ("B", 2)),)
        assert (engine.device, engine.device_reason) == ("cpu", "cpu (1 thread), as asked")
        result = engine.run({"frames": FRAMES, "mask": MASK})
        assert result.keys() == {"total"}
        np.testing.assert_array_equal(result["total"], [[4, 6], [21, 24]])


def test_runs_arrays_that_are_views() -> None:
    engine = open_engine(weighted_sum(), "cpu")
    frames = np.asfortranarray(FRAMES)[::-1]
    np.testing.assert_array_equal(engine.run({"frames": frames, "mask": MASK[::-1]})["total"], [[21, 24], [4, 6]])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"frames": FRAMES}, "was given frames; it takes exactly frames (B, F, 2) uint8, mask (B, F) bool"),
        ({}, "was given nothing"),
        ({"frames": FRAMES, "mask": MASK, "masks": MASK}, "was given frames, mask, masks; it takes exactly"),
        ({"frames": FRAMES.astype(float), "mask": MASK}, "frames is float64; the graph takes frames (B, F, 2) uint8"),
        ({"frames": FRAMES, "mask": MASK.astype(np.int64)}, "or convert it with .astype('bool')"),
        ({"frames": FRAMES[0], "mask": MASK}, "frames has shape (3, 2)"),
        ({"frames": FRAMES[..., :1], "mask": MASK}, "axis 2 of frames has size 1"),
        ({"frames": FRAMES, "mask": MASK[:1]}, "B is 2 in frames and 1 in mask; it must be the same"),
        ({"frames": FRAMES, "mask": MASK[:, :2]}, "F is 3 in frames and 2 in mask"),
    ],
)
def test_wrong_inputs_are_refused_with_what_to_pass(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(EngineError) as caught:
        open_engine(weighted_sum(), "cpu").run(inputs)
    assert message in str(caught.value)


@pytest.mark.parametrize("graph", [b"", b"not a graph" * 10, weighted_sum()[:100]])
def test_a_damaged_graph_is_refused(graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime refused the graph: "):
        open_engine(graph, "cpu")
    assert capfd.readouterr() == ("", ""), "the message is the only output"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.onnx"):
        open_engine(tmp_path / "none.onnx", "cpu")


def test_a_failure_inside_the_graph_is_mapped(capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load_from_string(weighted_sum())
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Reshape", ["sum", "size"], ["total"]))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [2], [1, 2]))  # fits B = 1 only
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    engine = open_engine(model.SerializeToString(), "cpu")
    with pytest.raises(EngineError, match=r"ONNX Runtime failed while it ran the graph: .*Reshape"):
        engine.run({"frames": FRAMES, "mask": MASK})
    assert capfd.readouterr() == ("", "")


def test_nothing_is_told_or_left_in_the_cache(tmp_path: Path) -> None:
    """ONNX Runtime leaves the number of the device and what it will send there."""
    graph = tmp_path / "sum.onnx"
    graph.write_bytes(weighted_sum())
    inherited = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env = inherited | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    script = f"import pathlib, hbi_engines.registry as r; r.open_engine(pathlib.Path({str(graph)!r}), 'cpu')"
    subprocess.run([sys.executable, "-c", script], env=env, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["sum.onnx"]


def test_a_closed_engine_does_not_run() -> None:
    engine = open_engine(weighted_sum(), "cpu")
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run({"frames": FRAMES, "mask": MASK})


def test_cuda_is_refused_with_a_reason_or_runs() -> None:
    """Where CUDA cannot run, asking for it is an error that says why, and auto says why it took the processor."""
    problem = cuda_problem()
    if not problem:
        assert open_engine(weighted_sum(), "auto").device == "cuda"
        return
    with pytest.raises(DeviceError) as caught:
        open_engine(weighted_sum(), "cuda")
    assert problem in str(caught.value)
    engine = open_engine(weighted_sum(), "auto")
    assert engine.device == "cpu"
    assert problem in engine.device_reason


@pytest.mark.gpu
def test_cuda_computes_what_the_processor_computes() -> None:
    require_gpu(cuda_problem())
    inputs = {"frames": FRAMES, "mask": MASK}
    results = [open_engine(weighted_sum(), device).run(inputs)["total"] for device in ("cpu", "cuda")]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("hollow", "message"), [(False, "ONNX Runtime cannot be imported"), (True, "pip uninstall -y onnxruntime onnxrun")]
)
def test_without_onnxruntime_the_message_says_what_to_install(tmp_path: Path, hollow: bool, message: str) -> None:
    """A Python that finds NumPy and this project, and no onnxruntime or only its emptied folder."""
    packages = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (packages / name).exists():
            (tmp_path / name).symlink_to(packages / name)
    if hollow:
        (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    paths = [str(tmp_path), str(Path(hbi_engines.__file__).parent.parent)]
    script = f"import sys; sys.path[:0] = {paths}; from hbi_engines.registry import open_engine; open_engine(b'')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("hbi_engines.errors.DeviceError: no device can run here: ")
    assert message in last_line
    assert 'pip install "hbi-infer[cpu]"' in last_line


def test_both_wheels_are_told_apart(tmp_path: Path) -> None:
    """Package indexes let both be installed, into one folder; ONNX Runtime itself does not notice."""
    script = "from hbi_engines.onnx_runtime import wheels_problem; print(wheels_problem())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def problem() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert problem() == ""
    write_package_record(tmp_path, "onnxruntime-gpu", "onnxruntime")
    assert problem().startswith("onnxruntime and onnxruntime-gpu are both installed, into the same folder")
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu, then pip install "hbi-infer[cpu]"' in problem()
