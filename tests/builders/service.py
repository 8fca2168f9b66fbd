"""A service of coloured videos: in this process for quick tests, or as `hbi-infer serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from hbi_infer.serve.app import build_app
from hbi_infer.serve.settings import ServeOptions
from tests.builders.tiny_bundle import write_tiny_bundle, write_video
from tests.paths import ROOT

COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()"]
HOST = "http://127.0.0.1:8000"


def write_library(folder: Path) -> Path:
    """Writes a bundle, and a folder of videos of which one is damaged; returns the folder of both."""
    write_tiny_bundle(folder / "bundle", "qa", "caption")
    write_video(folder / "videos" / "red.mp4", "red")
    write_video(folder / "videos" / "green then blue.mkv", "green", "blue", seconds_each=2.0)
    write_video(folder / "videos" / "more" / "blue.mp4", "blue")
    (folder / "videos" / "damaged.mp4").write_bytes(b"\0" * 100)
    return folder


def options(folder: Path, **given: Any) -> ServeOptions:
    """Options of a service of such a folder."""
    given = {"videos": (folder / "videos",), "bundles": (str(folder / "bundle"),), "workers": 1} | given
    return ServeOptions(device="cpu", **given)


@contextmanager
def client_of(given: ServeOptions, base_url: str = HOST) -> Iterator[TestClient]:
    """Runs a service in this process, and waits until its index is up to date."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(given.videos[0].parent / "cache"))
        app = build_app(given)
    with TestClient(app, base_url=base_url, raise_server_exceptions=False) as client:
        wait_for_index(client.app.state.service)  # type: ignore[attr-defined]
        yield client


def wait_for_index(service: Any) -> None:
    for indexer in service.indexers.values():
        indexer.wait(60)


@dataclass
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    client: httpx2.Client

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


@contextmanager
def running(*arguments: str | Path, env: dict[str, str] | None = None, **client: Any) -> Iterator[Running]:
    """Runs `hbi-infer serve` at a free port; what it says on stderr goes to ours."""
    command = [*COMMAND, "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert re.fullmatch(r"https?://\S+:\d+/", line), line + (process.stderr.read() if process.stderr else "")
        with httpx2.Client(base_url=line, timeout=30, trust_env=False, **client) as http:
            yield Running(process, line, http)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def wait_until_indexed(http: httpx2.Client, seconds: float = 60) -> dict[str, Any]:
    """Waits until no update runs; the state of the last one."""
    until = time.monotonic() + seconds
    while (state := http.get("/v1/index").json())["running"]:
        assert time.monotonic() < until, state
        time.sleep(0.05)
    return dict(state)
