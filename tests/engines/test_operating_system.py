"""What the operating system says of this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_engines.operating_system import ended_by_alarm, lock, peak_memory_bytes, physical_cores, usable_cpus


def test_cores_are_the_physical_cores_of_the_process() -> None:
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))
    script = "from hbi_engines.operating_system import physical_cores; print(physical_cores())"
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


def test_processors_and_memory_of_this_process() -> None:
    assert set(usable_cpus()) == os.sched_getaffinity(0)
    assert 2**20 < (peak_memory_bytes() or 0) < 2**45


def test_a_file_is_locked_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as one, (tmp_path / "file").open("w") as other:
        lock(one)
        with pytest.raises(OSError, match="unavailable"):
            lock(other)
    with (tmp_path / "file").open("w") as again:
        lock(again)


def test_an_alarm_ends_a_process() -> None:
    script = "import time; from hbi_engines.operating_system import set_alarm; set_alarm(0.1); time.sleep(30)"
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=20)
    assert ended_by_alarm(done.returncode)
    assert not ended_by_alarm(0)
