"""What is checked of inputs before any runtime sees them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from hbi_engines.engine import AxisRange, InputCheck, Inputs, TensorSpec, check_inputs, one_at_a_time
from hbi_engines.errors import EngineError

SPECS = (TensorSpec("frames", "uint8", ("batch", 4, 3)), TensorSpec("mask", "bool", ("batch", 4)))


class OnGPU:
    """An array as libraries for GPUs describe theirs; nothing here looks at its memory."""

    def __init__(self, shape: tuple[int, ...], typestr: str, strides: tuple[int, ...] | None = None) -> None:
        data = (0xDEAD, False)
        self.__cuda_array_interface__: dict[str, Any] = {"shape": shape, "typestr": typestr, "data": data, "version": 3}
        if strides is not None:
            self.__cuda_array_interface__["strides"] = strides


def inputs(batch: int = 2) -> dict[str, Any]:
    return {"frames": np.zeros((batch, 4, 3), np.uint8), "mask": np.zeros((batch, 4), np.bool_)}


@pytest.mark.parametrize(
    "frames", [OnGPU((2, 4, 3), "|u1"), OnGPU((2, 4, 3), "|u1", strides=(12, 3, 1)), OnGPU((0, 4, 3), "|u1")]
)
def test_arrays_of_a_gpu_pass_where_they_are_taken(frames: OnGPU) -> None:
    batch = frames.__cuda_array_interface__["shape"][0]
    check_inputs(SPECS, {**inputs(batch), "frames": frames}, on_gpu=True)


@pytest.mark.parametrize(
    ("frames", "on_gpu", "message"),
    [
        (OnGPU((2, 4, 3), "|u1"), False, "frames is in the memory of a GPU; this engine takes NumPy arrays"),
        (OnGPU((2, 4, 3), "<f4"), True, "frames is float32; the graph takes frames (batch, 4, 3) uint8"),
        (OnGPU((2, 4), "|u1"), True, "frames has shape (2, 4)"),
        (OnGPU((3, 4, 3), "|u1"), True, "batch is 3 in frames and 2 in mask"),
        (OnGPU((2, 4, 3), "|u1", strides=(1, 2, 8)), True, "frames is a view with gaps in the memory of a GPU"),
        ([[[0, 0, 0]] * 4] * 2, True, "frames is a list; pass a NumPy array for frames (batch, 4, 3) uint8"),
    ],
)
def test_other_arrays_are_refused(frames: object, on_gpu: bool, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        check_inputs(SPECS, {**inputs(), "frames": frames}, on_gpu=on_gpu)  # type: ignore[dict-item]
    assert message in str(caught.value)


@pytest.mark.parametrize(("batch", "fits"), [(1, False), (2, True), (8, True), (9, False)])
def test_a_shape_outside_the_profile_is_refused(batch: int, fits: bool) -> None:
    ranges = {"batch": AxisRange(2, 4, 8)}
    if fits:
        check_inputs(SPECS, inputs(batch), ranges)
        return
    with pytest.raises(EngineError, match=rf"batch is {batch} in frames; the engine was built for 2 to 8: pass parts"):
        check_inputs(SPECS, inputs(batch), ranges)


class Busy:
    """An engine whose runtime refuses a second thread."""

    def __init__(self) -> None:
        self.num_running = 0

    @one_at_a_time
    def run(self, inputs: Inputs) -> int:
        self.num_running += 1
        time.sleep(0.01)
        running = self.num_running
        self.num_running -= 1
        return running


def test_threads_wait_for_an_engine_and_not_for_others() -> None:
    one, other = Busy(), Busy()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one.run, [{}] * 8)) == [1] * 8
    assert vars(one)["_running"] is not vars(other).setdefault("_running", None)


def test_what_fitted_once_is_remembered_and_nothing_else() -> None:
    check = InputCheck((TensorSpec("a", "float32", ("B", 2)), TensorSpec("b", "int64", ("B",))))
    fitting = {"a": np.zeros((3, 2), np.float32), "b": np.zeros(3, np.int64)}
    for _ in range(2):
        check.check(fitting)
    wrong: list[dict[str, Any]] = [
        {"a": fitting["a"]},
        {**fitting, "b": np.zeros(2, np.int64)},
        {**fitting, "b": np.zeros(3, ">i8")},
        {**fitting, "c": fitting["b"]},
        {**fitting, "c": 3},
    ]
    for inputs in wrong:
        with pytest.raises(EngineError):
            check.check(inputs)
