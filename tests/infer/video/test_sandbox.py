"""Processes that are confined and try what they may not, with the real kernel; and systems that lack a fence."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer.video.sandbox import Fences, can_confine, fences
from tests.builders.command_line import unmeasured

pytestmark = pytest.mark.skipif(not can_confine(), reason="only Linux has these fences")

START = """
import ctypes, mmap, os, platform, resource, signal, socket, subprocess, sys, threading, time
from hbi_engines.operating_system import limit_memory
from hbi_infer.video import sandbox
given = os.open(sys.argv[1], os.O_RDONLY)
written = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
"""
CONFINE = "limit_memory(400_000_000); print(sandbox.confine(cpu_seconds=30).in_words(), flush=True)\n"
WRITER = "print(sandbox.confine(may_write=True).in_words(), flush=True)\n"


def run(tmp_path: Path, code: str, *, before: str = "", confine: str = CONFINE) -> subprocess.CompletedProcess[str]:
    (tmp_path / "given").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"secret")
    command = [
        sys.executable,
        "-c",
        START + before + confine + code,
        str(tmp_path / "given"),
        str(tmp_path / "written"),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=unmeasured()
    )


@pytest.fixture(scope="module")
def active(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What this kernel has."""
    done = run(tmp_path_factory.mktemp("active"), "")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def needs_filter(active: str) -> None:
    if "seccomp" not in active:
        pytest.skip(f"this kernel has only: {active}")


def test_the_fences_that_stand_are_told(active: str) -> None:
    parts = active.split("; ")
    assert parts[0] == "no new privileges"
    assert parts[-1] == "limits of memory, core dumps, processes, files, processor time"
    assert fences() == Fences()
    assert Fences().in_words() == "none"
    assert not Fences().is_closed


def test_what_decoding_needs_works(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "print(os.pread(given, 4, 3), os.fstat(given).st_size, len(bytearray(10**8)), time.monotonic() > 0)\n"
        "thread = threading.Thread(target=lambda: None)\n"
        "try:\n    thread.start(); thread.join()\nexcept RuntimeError:\n    pass\n",  # only root may start one
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == ["b'3456' 10 100000000 True"]


@pytest.mark.usefixtures("needs_filter")
@pytest.mark.parametrize(
    "code",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.system('true')",
        "os.execv('/bin/true', ['true'])",
        "open('new', 'w')",
        "os.open('secret', os.O_RDWR)",
        "os.kill(os.getppid(), 0)",
        "ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
    ],
)
def test_what_no_decoder_does_ends_it(tmp_path: Path, code: str) -> None:
    done = run(tmp_path, f"{code}\nprint('went on')")
    assert done.returncode == -signal.SIGSYS, done.stderr
    assert "went on" not in done.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("needs_filter")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("open('secret')", "PermissionError"),
        ("open('/proc/self/mem', 'rb')", "PermissionError"),
        ("os.listdir('.')", "PermissionError"),
        ("os.stat('secret')", "Function not implemented"),
        ("os.unlink('secret')", "Function not implemented"),
        ("mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", "PermissionError"),
        ("resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))", "Function not implemented"),
        ("os.ftruncate(written, 0)", "Function not implemented"),
        ("os.write(written, b'x')", "File too large"),
        ("bytearray(10**9)", "MemoryError"),
    ],
)
def test_what_else_it_does_not_need_is_refused(tmp_path: Path, code: str, message: str) -> None:
    done = run(tmp_path, code)
    assert done.returncode == 1
    assert message in done.stderr
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.usefixtures("needs_filter")
def test_threads_that_ran_before_are_confined_too(tmp_path: Path) -> None:
    before = "go = threading.Event(); thread = threading.Thread(target=lambda: go.wait() and socket.socket())\n"
    done = run(tmp_path, "go.set(); thread.join(); print('went on')", before=f"{before}thread.start()\n")
    assert done.returncode == -signal.SIGSYS


def test_processor_time_is_bounded(tmp_path: Path) -> None:
    done = run(tmp_path, "while True: pass", confine="sandbox.confine(cpu_seconds=1)\n")
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_a_writer_writes_what_it_has_open(tmp_path: Path) -> None:
    code = "os.write(written, b'text'); os.ftruncate(written, 3); os.fsync(written); print(os.pread(given, 1, 0))"
    done = run(tmp_path, code, confine=WRITER)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "written").read_bytes() == b"tex"
    assert done.stdout.splitlines()[0].endswith("limits of core dumps")


def test_a_processor_without_numbers_has_landlock(tmp_path: Path, active: str) -> None:
    before = "platform.machine = lambda: 'riscv64'\n"
    done = run(tmp_path, "print(os.pread(given, 1, 0)); open('secret')", before=before)
    assert "seccomp" not in done.stdout
    if "Landlock" in active:
        assert "Landlock" in done.stdout
        assert "PermissionError" in done.stderr
    else:
        assert done.returncode == 0


def test_a_kernel_without_filters_leaves_the_limits(tmp_path: Path) -> None:
    library = "class Old:\n    prctl = staticmethod(lambda *_: -1)\n"
    done = run(tmp_path, "open('secret')", before=f"{library}ctypes.CDLL = lambda *_, **__: Old\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "limits of memory, core dumps, processes, files, processor time"


def test_another_system_has_none(tmp_path: Path) -> None:
    done = run(tmp_path, "open('secret'); print(sandbox.can_confine())", before="sys.platform = 'darwin'\n")
    assert (done.returncode, done.stdout.split()) == (0, ["none", "False"])


def test_this_process_is_not_confined() -> None:
    assert list(Path("/").iterdir())
