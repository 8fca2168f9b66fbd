"""What depends on the operating system, on the one that is here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hbi_engines import operating_system
from hbi_engines.operating_system import (
    cause_of_death,
    ended_by_alarm,
    ended_by_kill,
    has_desktop,
    is_ours,
    lock,
    may_enter,
    may_read,
    memory_bytes,
    memory_file,
    memory_limit_bytes,
    new_group,
    open_in_desktop,
    open_to_read,
    peak_memory_bytes,
    physical_cores,
    processor_facts,
    read_at,
    reserve,
    send_file,
    take_file,
    usable_cpus,
    widen_pipe,
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from hbi_engines.operating_system import *; {code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_cores_are_those_that_the_process_may_use() -> None:
    assert 1 <= physical_cores() <= len(usable_cpus()) == len(os.sched_getaffinity(0))
    cpu = usable_cpus()[0]
    done = python(f"import os; os.sched_setaffinity(0, [{cpu}]); print(usable_cpus(), physical_cores())")
    assert done.stdout == f"[{cpu}] 1\n"


def test_the_processor_is_named() -> None:
    facts = processor_facts()
    assert facts["flags"]
    assert facts["model name"]


def test_a_system_without_proc_gives_fallbacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(operating_system, "Path", lambda name: tmp_path / name.lstrip("/"))
    assert (processor_facts(tmp_path / "none"), peak_memory_bytes()) == ({}, None)
    assert physical_cores() == len(usable_cpus())


def test_the_peak_of_memory_is_of_this_process_alone() -> None:
    """A child of a parent with much memory holds little."""
    ballast = np.ones(2**27, np.uint8)
    child, parent, machine = int(python("print(peak_memory_bytes())").stdout), peak_memory_bytes(), memory_bytes()
    assert parent is not None
    assert machine is not None
    assert 2**20 < child < ballast.nbytes < parent < machine


def test_rights(tmp_path: Path) -> None:
    assert may_read(tmp_path)
    assert may_enter(tmp_path)
    assert not may_read(tmp_path / "none")


def test_a_file_is_locked_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, (tmp_path / "file").open("rb") as other:
        lock(file)
        with pytest.raises(OSError, match="temporarily unavailable"):
            lock(other)
        assert not is_ours(other)
        file.close()
        assert is_ours(other)


def test_space_is_reserved(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        reserve(file, 2**20)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 2**20


def test_an_alarm_ends_the_process_unless_it_is_called_off() -> None:
    rung = python("import time; set_alarm(60); set_alarm(0.1); time.sleep(60)")
    assert ended_by_alarm(rung.returncode)
    called_off = python("import time; set_alarm(0.1); set_alarm(0); time.sleep(0.3)")
    assert called_off.returncode == 0
    assert not ended_by_alarm(0)


def test_causes_of_death() -> None:
    assert cause_of_death(-signal.SIGSEGV) == "SIGSEGV"
    assert cause_of_death(7) == "exit code 7"
    assert ended_by_kill(-signal.SIGKILL)
    assert not ended_by_kill(-signal.SIGTERM)


def test_a_process_of_another_group() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, **new_group()) as process:
        assert os.getpgid(process.pid) != os.getpgid(0)


def test_a_pipe_is_widened() -> None:
    reader, writer = os.pipe()
    widen_pipe(writer, 2**20)
    os.set_blocking(writer, False)  # a system may allow less
    assert os.write(writer, bytes(2**20)) >= 2**15
    os.close(reader)
    os.close(writer)


def test_memory_is_limited() -> None:
    assert memory_limit_bytes() is None
    limited = python(
        "limit_memory(2**29); block = bytearray(2**28); print(memory_limit_bytes(), len(block))\n"
        "try:\n    bytearray(2**29)\nexcept MemoryError:\n    print('refused')"
    )
    assert limited.stdout.split() == [str(2**29), str(2**28), "refused"]


def test_a_desktop_is_known_by_its_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_desktop()
    with pytest.raises(OSError, match="there is no desktop here"):
        open_in_desktop(tmp_path)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert has_desktop()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        open_in_desktop(tmp_path)


def test_a_program_that_stays_open_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\nexec sleep 2\n')
    opener.chmod(0o755)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(operating_system, "OPENER_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    open_in_desktop(Path("-name.mp4"))
    assert (tmp_path / "opened").read_text() == f"{tmp_path}/-name.mp4\n"


def test_an_open_file_is_passed_on_and_read_anywhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    here, there = socket.socketpair()
    with here, there:
        opened = open_to_read(tmp_path / "file")
        send_file(here, opened)
        os.close(opened)
        taken = take_file(there)
        assert (read_at(taken, 3, 2), read_at(taken, 9, 4), os.lseek(taken, 0, os.SEEK_CUR)) == (b"cde", b"ef", 0)
        os.close(taken)
        here.send(b"\0")
        with pytest.raises(EOFError):
            take_file(there)


def test_a_pipe_is_opened_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.close(open_to_read(tmp_path / "pipe"))


def test_a_file_in_memory_is_in_no_folder() -> None:
    file = memory_file("test")
    assert os.write(file, b"abc") == 3
    assert read_at(file, 3, 0) == b"abc"
    assert not Path(f"/proc/self/fd/{file}").readlink().exists()
    os.close(file)
