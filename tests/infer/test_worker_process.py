"""Child processes that work, raise, print, crash, hang and lose their parent, all with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hbi_infer.errors import ExportError, HBIError
from hbi_infer.worker_process import WorkerDiedError, WorkerProcess, run_job

CHILD = """
import atexit, os, signal, sys, time
print("printed while importing")

from hbi_infer.errors import ExportError, HBIError
from hbi_infer.worker_process import Answer, end_at_once

class OwnError(HBIError):
    pass

def work(job, content, tell):
    if "parts" in job:
        for number in range(job["parts"]):
            tell({"number": number})
    match job.get("how"):
        case "junk":
            print("printed by Python")
            os.system("echo printed by a library")
            print(repr(sys.stdin.read()), file=sys.stderr)
        case "error":
            raise ExportError("it cannot be built: mend it")
        case "own error":
            raise OwnError("another one")
        case "bug":
            raise ZeroDivisionError("line one")
        case "exit":
            sys.exit(7)
        case "signal":
            sys.stderr.write("one\\ntwo\\nthree\\nfour\\n")
            sys.stderr.flush()
            os.kill(os.getpid(), job["signal"])
            time.sleep(60)
        case "hang":
            time.sleep(60)
        case "end":
            atexit.register(open, job["file"], "w")
            if job["at_once"]:
                end_at_once()
        case "read":
            with open(job["descriptor"]) as file:
                return Answer({"read": file.read()})
    return Answer({"job": job, "pid": os.getpid()}, [memoryview(content), memoryview(content[::-1])])
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that does what a job says, where this process imports from."""
    (tmp_path / "child_of_test.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    return "child_of_test"


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie: an orphan may find nobody who waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_a_job_gives_its_parts_and_its_end(module: str) -> None:
    parts: list[object] = []
    ended = run_job(module, {"parts": 3, "text": "ü\n"}, on_part=parts.append)
    assert parts == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert ended["job"] == {"parts": 3, "text": "ü\n"}
    assert not is_running(ended["pid"])


def test_raw_bytes_go_both_ways_job_after_job(module: str) -> None:
    worker = WorkerProcess(module)
    pids = set()
    try:
        assert worker.receive().kind == "started"
        for size in (0, 1, 3_000_000):
            content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
            worker.send({"size": size}, content.tobytes())
            message = worker.receive()
            assert (message.kind, message.sizes) == ("end", (size, size))
            pids.add(message.document["pid"])
            for expected in (content, content[::-1]):
                received = np.empty(size, np.uint8)
                worker.receive_into(received.data)
                np.testing.assert_array_equal(received, expected)
        worker.finish()
    finally:
        worker.kill()
    assert len(pids) == 1


def test_a_file_is_handed_over_open(module: str, tmp_path: Path) -> None:
    worker = WorkerProcess(module, takes_files=True)
    try:
        assert worker.receive().kind == "started"
        for number in range(3):
            path = tmp_path / "file"
            path.write_text(f"content {number}")
            with path.open() as file:
                worker.send({"how": "read"}, file=file.fileno())
            path.unlink()
            assert worker.receive().document["read"] == f"content {number}"
        worker.send({"how": "no file"})
        assert "descriptor" not in worker.receive().document["job"]
        worker.finish()
    finally:
        worker.kill()


def test_what_libraries_print_is_no_answer_and_stdin_is_empty(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_job(module, {"how": "junk"})["job"] == {"how": "junk"}
    assert capfd.readouterr() == ("", "")


def test_our_errors_are_raised_here(module: str) -> None:
    with pytest.raises(ExportError, match=r"^it cannot be built: mend it$"):
        run_job(module, {"how": "error"})
    with pytest.raises(HBIError, match=r"^another one$") as raised:
        run_job(module, {"how": "own error"})
    assert type(raised.value) is HBIError


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (signal.SIGSEGV, "of SIGSEGV: two / three / four"),
        (signal.SIGINT, "of SIGINT: "),
        (signal.SIGKILL, "of SIGKILL (memory may have run out): two / three / four"),
    ],
)
def test_a_signal_is_named_with_the_last_lines(module: str, sent: signal.Signals, message: str) -> None:
    with pytest.raises(WorkerDiedError) as raised:
        run_job(module, {"how": "signal", "signal": sent})
    died = raised.value
    assert str(died).startswith(message)
    assert (died.cause, died.exit_code, died.had_started, died.was_silent) == (sent.name, -sent, True, False)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("exit", r"^with exit code 7: printed while importing$"),
        ("bug", r"^with exit code 1: .* / ZeroDivisionError: line one$"),
    ],
)
def test_an_exit_code_is_told(module: str, how: str, message: str) -> None:
    with pytest.raises(WorkerDiedError, match=message):
        run_job(module, {"how": how})


def test_a_module_that_is_not_there_did_not_start() -> None:
    with pytest.raises(WorkerDiedError, match=r"with exit code 1: .*No module named 'no_such_module'") as raised:
        run_job("no_such_module", {})
    assert not raised.value.had_started


@pytest.mark.parametrize("at_once", [False, True])
def test_a_child_without_rights_does_nothing_at_its_end(module: str, tmp_path: Path, at_once: bool) -> None:
    file = tmp_path / "written at the end"
    run_job(module, {"how": "end", "file": str(file), "at_once": at_once})
    assert file.exists() is not at_once


def test_silence_ends_a_child_and_parts_break_it(module: str) -> None:
    parts: list[object] = []
    started = time.monotonic()
    with pytest.raises(WorkerDiedError, match=r"^of SIGKILL \(it had said nothing for 2 s\): ") as raised:
        run_job(module, {"parts": 2, "how": "hang"}, on_part=parts.append, silence_seconds=2)
    assert raised.value.was_silent
    assert len(parts) == 2
    assert time.monotonic() - started < 30


RUN_AND_SAY = """
import sys
from hbi_infer.worker_process import run_job
run_job(sys.argv[1], {"parts": 1, "how": "hang"}, on_part=lambda _: print("ready", flush=True))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_child_ends_with_its_parent(module: str, sent: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN_AND_SAY, module]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (child,) = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        parent.send_signal(sent)
        _, stderr = parent.communicate(timeout=30)
    assert parent.returncode == -sent
    assert ("KeyboardInterrupt" in stderr) == (sent == signal.SIGINT)
    wait_until(lambda: not is_running(child))
