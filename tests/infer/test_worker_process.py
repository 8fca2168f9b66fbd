"""Child processes that answer, print, fail, hang and die, and parents that are interrupted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hbi_infer.errors import HBIError, InputError
from hbi_infer.worker_process import WorkerDiedError, WorkerProcess, run_job

JOBS = """
import atexit, os, signal, sys, time
from hbi_infer.errors import HBIError, InputError
from hbi_infer.worker_process import Answer

class Unknown(HBIError):
    pass

def echo(job, content, tell):
    for part in job["parts"]:
        tell({"part": part})
    return Answer({"size": len(content)}, [memoryview(content), memoryview(b"end")])

def chatter(job, content, tell):
    print("printed", flush=True)
    os.system("echo a child of it; cat")
    tell({"stdin": sys.stdin.read()})
    return Answer({"pid": os.getpid()})

def die(job, content, tell):
    os.write(1, b"first line\\nlast words\\n")
    if job["signal"]:
        os.kill(os.getpid(), job["signal"])
    os._exit(3)

def die_at_the_end(job, content, tell):
    atexit.register(os._exit, 5)
    return Answer({})

def refuse(job, content, tell):
    raise {"known": InputError, "unknown": Unknown}[job["error"]]("give something else")

def crash(job, content, tell):
    raise RuntimeError("a bug")

def sleep(job, content, tell):
    for _ in range(job["parts"]):
        time.sleep(0.2)
        tell({})
    time.sleep(job["seconds"])
    return Answer({})

def work(job, content, tell):
    return globals()[job["do"]](job, content, tell)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "jobs_of_a_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)
    return "jobs_of_a_test"


@contextmanager
def worker_of(module: str) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(module)
    try:
        yield worker
    finally:
        worker.kill()


def test_parts_and_raw_bytes_come_through(module: str) -> None:
    content = os.urandom(3 * 2**20)  # more than a pipe holds, both ways
    parts: list[dict[str, Any]] = []
    done = run_job(module, {"do": "echo", "parts": ["ä", 2]}, content, on_part=parts.append)
    assert (parts, done) == ([{"part": "ä"}, {"part": 2}], {"size": len(content)})
    with worker_of(module) as worker:
        assert not worker.has_started
        for _ in range(2):
            worker.send({"do": "echo", "parts": []}, content)
        assert worker.receive().kind == "started"
        for _ in range(2):
            message = worker.receive()
            assert (message.kind, message.sizes) == ("end", (len(content), 3))
            received = [bytearray(size) for size in message.sizes]
            for array in received:
                worker.receive_into(memoryview(array))
            assert received == [content, b"end"]
        worker.finish()


def test_what_libraries_print_is_kept_out_of_the_messages(module: str) -> None:
    parts: list[dict[str, Any]] = []
    done = run_job(module, {"do": "chatter"}, on_part=parts.append)
    assert parts == [{"stdin": ""}]
    assert done["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (signal.SIGSEGV, "of SIGSEGV"),
        (signal.SIGKILL, "of SIGKILL (memory may have run out)"),
        (0, "with exit code 3"),
    ],
)
def test_a_death_is_told_with_its_cause_and_the_last_words(module: str, sent: int, cause: str) -> None:
    with pytest.raises(WorkerDiedError) as died:
        run_job(module, {"do": "die", "signal": int(sent)})
    assert str(died.value) == f"{cause}: first line / last words"
    assert (died.value.exit_code, died.value.had_started, died.value.was_silent) == (-sent or 3, True, False)


def test_a_bug_and_a_death_after_the_answer_are_deaths(module: str) -> None:
    with pytest.raises(WorkerDiedError, match=r"with exit code 1: .*RuntimeError: a bug"):
        run_job(module, {"do": "crash"})
    with pytest.raises(WorkerDiedError, match="with exit code 5: it said nothing"):
        run_job(module, {"do": "die_at_the_end"})


def test_a_module_that_cannot_be_imported() -> None:
    with pytest.raises(WorkerDiedError, match=r"with exit code 1: .*ModuleNotFoundError: .*no_such_module") as died:
        run_job("no_such_module", {})
    assert not died.value.had_started


def test_our_errors_stay_what_they_are_and_the_child_goes_on(module: str) -> None:
    with worker_of(module) as worker:
        for error in ("known", "unknown"):
            worker.send({"do": "refuse", "error": error})
        worker.send({"do": "echo", "parts": []})
        worker.receive()
        with pytest.raises(InputError, match=r"^give something else$"):
            worker.receive()
        with pytest.raises(HBIError, match=r"^give something else$") as raised:
            worker.receive()
        assert type(raised.value) is HBIError
        assert worker.receive().kind == "end"


def test_a_child_that_says_nothing_is_killed(module: str) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerDiedError, match=r"^of SIGKILL \(it had said nothing for 2 s\): it said nothing$") as died:
        run_job(module, {"do": "sleep", "parts": 0, "seconds": 600}, silence_seconds=2)
    assert died.value.was_silent
    assert time.monotonic() - started < 30


def test_every_part_begins_the_time_limit_anew(module: str) -> None:
    seen: list[dict[str, Any]] = []
    run_job(module, {"do": "sleep", "parts": 15, "seconds": 0}, on_part=seen.append, silence_seconds=2.5)
    assert len(seen) == 15


def test_an_error_while_a_part_is_taken_ends_the_child(module: str) -> None:
    def stop(_part: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    before = children(os.getpid())
    with pytest.raises(KeyboardInterrupt):
        run_job(module, {"do": "sleep", "parts": 1, "seconds": 600}, on_part=stop)
    assert children(os.getpid()) == before


PARENT = """
import sys
from hbi_infer.worker_process import WorkerProcess, run_job
job = {"do": "sleep", "parts": 1, "seconds": float(sys.argv[1])}
if job["seconds"]:
    run_job("jobs_of_a_test", job, on_part=lambda _: print("ready", flush=True))
else:
    worker = WorkerProcess("jobs_of_a_test")
    worker.receive()
    print("ready", flush=True)
    worker.receive()
"""


@contextmanager
def parent_of_one(tmp_path: Path, seconds: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program whose child sleeps, or waits for a job, in a process group of its own as a shell would start it."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "ready\n"
        (child,) = children(it.pid)
        yield it, child
        it.kill()


def test_ctrl_c_ends_a_program_and_its_child(tmp_path: Path) -> None:
    with parent_of_one(tmp_path, 600) as (parent, child):
        os.killpg(parent.pid, signal.SIGINT)
        _, stderr = parent.communicate(timeout=20)
        assert parent.returncode == -signal.SIGINT
        assert stderr.count("Traceback") == 1
        assert not is_running(child)


@pytest.mark.parametrize("seconds", [600, 0])
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path, seconds: float) -> None:
    with parent_of_one(tmp_path, seconds) as (parent, child):
        assert is_running(child)
        parent.kill()
        wait_until(lambda: not is_running(child))


def children(pid: int) -> set[int]:
    """The processes that a process has started and not yet waited for."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return set(map(int, found))


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
        time.sleep(0.01)
