"""Updates of an index in other processes, and how they are watched and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

UPDATE = """
import sys, time
from hbi_infer.api import Index
from hbi_infer.api import HBI

def main():
    folder, location, bundle, stop_after, *rebuild = sys.argv[1:]

    def progress(done):
        if not done.path:
            return
        print("stored", done.path, flush=True)
        if done.videos_done == int(stop_after):
            print("stopped", flush=True)
            time.sleep(60)

    model = HBI.load(bundle, device="cpu", threads=1)
    with Index.open(folder, model, location=location, rebuild=bool(rebuild)) as index:
        print("opened", flush=True)
        if rebuild:
            sys.stdin.readline()
        report = index.update(workers=2, progress=progress, on_wait=lambda: print("waiting", flush=True))
        print("done", report.added, report.unchanged, flush=True)

if __name__ == "__main__":
    main()
"""


NUM_VIDEOS = 20


def start_update(
    places: tuple[Path, Path, Path], tmp_path: Path, stop_after: int, *options: str
) -> subprocess.Popen[str]:
    script = tmp_path / "update.py"
    script.write_text(UPDATE)
    command = [sys.executable, str(script), *map(str, places), str(stop_after), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # so that it is stopped with its workers, as by a terminal
    )


def read_until(process: subprocess.Popen[str], line: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != line:
        got = process.stdout.readline()
        assert got, process.stderr and process.stderr.read()
        lines.append(got.strip())
    return lines


def wait_until_gone(group: int) -> None:
    """Wait for every process of the group to end: workers must not outlive an update."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("processes were left behind")
