"""Graphs that never end: their limit, and Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from hbi_engines.errors import EngineError
from hbi_engines.openvino_runtime import problem
from hbi_engines.registry import open_engine
from hbi_engines.time_limit import StoppedInTime, wait_for
from tests.builders.hostile_graphs import endless
from tests.engines.test_onnx_runtime import FRAMES, MASK, weighted_sum
from tests.paths import ROOT

X = {"x": np.ones(1, np.float32)}
LATE = r"a run took longer than the limit of 0\.2 s and was given up: use a graph that ends, or raise limit_seconds"


@pytest.mark.parametrize("in_main", [True, False])
def test_a_run_that_never_ends_is_ended(in_main: bool) -> None:
    engine = open_engine(endless(), "cpu", threads=1, limit_seconds=0.2)
    errors: list[str] = []

    def run() -> None:
        with pytest.raises(EngineError, match=LATE) as caught:
            engine.run(X)
        errors.append(str(caught.value))

    started = time.monotonic()
    if in_main:
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert errors
    assert time.monotonic() - started < 5


def test_an_engine_runs_again_after_it_was_late() -> None:
    late, other = (open_engine(graph, "cpu", limit_seconds=0.2) for graph in (endless(), weighted_sum()))
    for _ in range(2):
        with pytest.raises(EngineError, match=LATE):
            late.run(X)
        np.testing.assert_array_equal(other.run({"frames": FRAMES, "mask": MASK})["total"], [[4, 6], [21, 24]])


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(EngineError, match="limit_seconds is 0; it must be greater than 0"):
        open_engine(endless(), "cpu", limit_seconds=0)


SCRIPT = """
import sys, numpy as np
from hbi_engines.registry import open_engine
from tests.builders.hostile_graphs import endless
device, starts_with, limit = sys.argv[1:]
print("loads", flush=True)
engine = open_engine(endless(starts_with=starts_with), device, threads=1, limit_seconds=float(limit))
print("runs", flush=True)
engine.run({"x": np.ones(1, np.float32)})
"""


def started(device: str, starts_with: str, limit: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, device, starts_with, str(limit)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("device", "starts_with", "interrupted_at"),
    [("cpu", "x", "runs"), ("openvino", "x", "runs"), ("openvino", "one", "loads")],
)
def test_ctrl_c_ends_it(device: str, starts_with: str, interrupted_at: str) -> None:
    """OpenVINO computes while it loads what is constant, and cannot be stopped in a loop."""
    if device == "openvino" and problem("fp32"):
        pytest.skip(problem("fp32"))
    process = started(device, starts_with, 100)
    assert process.stdout is not None
    said = iter(process.stdout.readline, "")
    assert any(line.strip() == interrupted_at for line in said), process.communicate()[1]
    time.sleep(1.5 if interrupted_at == "loads" else 0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize(("starts_with", "what"), [("x", "a run"), ("one", "loading")])
def test_openvino_is_given_up(starts_with: str, what: str) -> None:
    if problem("fp32"):
        pytest.skip(problem("fp32"))
    process = started("openvino", starts_with, 1)
    _, errors = process.communicate(timeout=20)
    assert f"EngineError: {what} took longer than the limit of 1 s" in errors.splitlines()[-1]


def test_work_that_ends_is_not_stopped() -> None:
    stopped: list[bool] = []
    with StoppedInTime(lambda: stopped.append(True), 0.1, "work"):
        pass
    assert signal.set_wakeup_fd(-1) == -1, "the socket of signals is taken back"
    time.sleep(0.2)
    assert not stopped


def test_the_socket_of_an_event_loop_stays() -> None:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    signal.set_wakeup_fd(ours.fileno())
    try:
        with StoppedInTime(lambda: None, 1, "work") as work:
            assert not work.hears_ctrl_c
        assert signal.set_wakeup_fd(-1) == ours.fileno()
    finally:
        signal.set_wakeup_fd(-1)
        ours.close()
        other.close()


def test_errors_of_work_in_another_thread_are_its_own() -> None:
    assert wait_for(lambda: 3, 1, "work") == 3
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0, 1, "work")
    ends = threading.Event()
    with pytest.raises(EngineError, match=r"work took longer than the limit of 0\.1 s"):
        wait_for(ends.wait, 0.1, "work", stop=ends.set)
    assert ends.is_set()
