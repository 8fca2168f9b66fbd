"""Loads `hbi-infer serve` with clients, over loopback, and kills it while it works.

    python benchmarks/serving.py [--clips 10000] [--clients 50] [--seconds 60] [--requests 10000]

The index holds made-up tokens, as in benchmarks/startup.py, so that a search does all it does for real. Measured are:
one client; all clients together; the server's memory over many requests; on the samples the first view of the page and
pictures of moments that nobody asked for before; and what a `kill -9` of a worker and of the server loses. Writes
benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from startup import prepare

from hbi_infer import HBI
from hbi_infer.api import Index

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from hbi_infer.cli import main; main()", "serve", "--port", "0"]
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "cyan")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
MOTIONS = ("moves left", "moves up and then blinks", "bounces", "pulses", "orbits and then shakes")
QUERIES = [f"a {colour} {shape} {motion}" for colour in COLOURS for shape in SHAPES for motion in MOTIONS]
JSON = {"content-type": "application/json"}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--copies", type=int, default=5, help="copies of the samples to index while it is killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary  # the indexes lie there
        folder = Path(temporary) / "videos"
        hbi = HBI.load("shapes")
        location = Index.location(folder, hbi)
        location.parent.mkdir(parents=True)
        prepare(folder, location, hbi, options.clips)
        with server("--videos", folder, "--no-update") as served:
            bundle = {"name": hbi.bundle.manifest.name, "sha256": hbi.bundle.sha256}
            result: dict[str, Any] = {"clips": options.clips, "clients": options.clients, "bundle": bundle}
            asyncio.run(load(served.port, 1, seconds=2.0))  # the first searches read the index
            result["one_client"] = asyncio.run(load(served.port, 1, seconds=10.0)).to_json()
            before = served.memory_bytes()
            result["together"] = asyncio.run(load(served.port, options.clients, seconds=options.seconds)).to_json()
            result["memory"] = {"before_bytes": before, "after_bytes": served.memory_bytes()}
            result["memory_over_requests"] = memory_over(served, options.clients, options.requests)
        result["killed_under_load"] = killed_under_load(folder, options.clients)
        result["samples"] = samples(Path(temporary))
        result["killed_while_indexing"] = killed_while_indexing(Path(temporary), options.copies)
    print(json.dumps(result, indent=2))
    print(write_result("serving", result))


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.address.rstrip("/").rpartition(":")[2])

    def memory_bytes(self) -> int:
        """Memory that it has in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

    def get(self, path: str) -> bytes:
        """Gets something."""
        with urllib.request.urlopen(self.address.rstrip("/") + path) as answer:
            return bytes(answer.read())

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """Posts JSON."""
        asked = urllib.request.Request(self.address.rstrip("/") + path, json.dumps(document).encode(), JSON)
        with urllib.request.urlopen(asked) as answer:
            return dict(json.loads(answer.read()))


@contextmanager
def server(*arguments: str | Path) -> Iterator[Server]:
    """Runs the service."""
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(process, process.stdout.readline().strip())
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


@dataclass
class Load:
    """What clients saw: seconds of each answer, and how many answers had which status."""

    wall_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        p50, p95, p99 = np.percentile(self.seconds or [0.0], [50, 95, 99])
        return {
            "requests": len(self.seconds),
            "requests_per_second": round(len(self.seconds) / self.wall_seconds, 1),
            "p50_seconds": round(float(p50), 4),
            "p95_seconds": round(float(p95), 4),
            "p99_seconds": round(float(p99), 4),
            "statuses": dict(self.statuses),
        }


async def load(port: int, clients: int, *, seconds: float = 1e9, requests: int = 10**9, searches_each: int = 1) -> Load:
    """Lets clients ask one thing after the other, each on a connection of its own, for a time or a number of requests.

    One request in `searches_each` is a search, the others list videos.
    """
    done, started = Load(), time.perf_counter()
    queries = iter(range(requests))

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for count in queries:
            if time.perf_counter() - started > seconds:
                break
            query = QUERIES[(number * 7 + count) % len(QUERIES)]
            begun = time.perf_counter()
            try:
                is_search = count % searches_each == 0
                status = await ask(reader, writer, search_for(query) if is_search else list_from(count))
            except (OSError, EOFError, ValueError):
                done.statuses["connection lost"] += 1
                break
            done.seconds.append(time.perf_counter() - begun)
            done.statuses[status] += 1
        writer.close()

    await asyncio.gather(*map(client, range(clients)))
    done.wall_seconds = time.perf_counter() - started
    return done


def search_for(query: str) -> bytes:
    """Returns the request that searches for a sentence."""
    body = json.dumps({"query": query}).encode()
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def list_from(number: int) -> bytes:
    """Returns the request that lists some videos."""
    return f"GET /v1/videos?limit=20&offset={number % 1000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Sends a request and reads the answer; returns the status."""
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.decode("latin-1").split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length"))
    await reader.readexactly(length)
    return lines[0].split()[1]


def memory_over(served: Server, clients: int, requests: int) -> list[dict[str, int]]:
    """Returns the server's memory after each tenth of many requests, of which one in four is a search."""
    steps = [{"requests": 0, "memory_bytes": served.memory_bytes()}]
    for step in range(1, 11):
        asyncio.run(load(served.port, clients, requests=requests // 10, searches_each=4))
        steps.append({"requests": step * requests // 10, "memory_bytes": served.memory_bytes()})
    return steps


def killed_under_load(folder: Path, clients: int) -> dict[str, Any]:
    """Kills the server while clients search, starts it anew, and compares what it finds."""
    query = {"query": QUERIES[0], "top_k": 50}
    with server("--videos", folder, "--no-update") as served:
        before = served.post("/v1/search", query)["results"]

        async def kill_amid() -> Load:
            task = asyncio.ensure_future(load(served.port, clients, seconds=20.0))
            await asyncio.sleep(2.0)
            served.process.kill()
            return await task

        seen = asyncio.run(kill_amid())
    started = time.perf_counter()
    with server("--videos", folder, "--no-update") as again:
        after = again.post("/v1/search", query)["results"]
        restarted = time.perf_counter() - started
        is_same = [(each["clip"], each["score"]) for each in before] == [
            (each["clip"], each["score"]) for each in after
        ]
    return {"answers_before": seen.statuses, "first_answer_after_seconds": round(restarted, 3), "same_results": is_same}


def samples(cache: Path) -> dict[str, Any]:
    """Measures the first view of the page, and pictures of moments, on the samples."""
    videos = cache / "samples"
    shutil.copytree(ROOT / "samples", videos)
    with server("--videos", videos) as served:
        wait_until_indexed(served)
        started = time.perf_counter()
        page = served.get("/").decode()
        parts = sorted({part.split('"')[0] for part in page.split('="/page/')[1:]})
        sizes = [len(served.get(f"/page/{part}")) for part in parts]
        served.get("/v1/collections")
        listed = json.loads(served.get("/v1/videos"))["videos"]
        first_view = time.perf_counter() - started
        clips = [json.loads(served.get(f"/v1/videos/{video['id']}"))["clips"][0]["id"] for video in listed]
        served.get(f"/v1/clips/{clips[0]}/thumbnail?at=0")  # starts a worker
        taken = []
        for number, clip in enumerate(clips * 10):
            started = time.perf_counter()
            served.get(f"/v1/clips/{clip}/thumbnail?at={number * 0.04:.2f}")
            taken.append(time.perf_counter() - started)
        killed = kill_workers(served, clips)
    return {
        "first_view": {"seconds": round(first_view, 3), "files": len(parts) + 1, "bytes": len(page) + sum(sizes)},
        "uncached_thumbnails": {
            "count": len(taken),
            "p50_seconds": round(float(np.percentile(taken, 50)), 4),
            "p95_seconds": round(float(np.percentile(taken, 95)), 4),
        },
        "killed_workers": killed,
    }


def kill_workers(served: Server, clips: list[str]) -> dict[str, Any]:
    """Kills the workers that make pictures, again and again, while pictures are asked for."""
    answered = killed = 0
    for number, clip in enumerate(clips * 3):
        for child in children_of(served.process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                killed += 1
        answered += served.get(f"/v1/clips/{clip}/thumbnail?at={number * 0.05 + 0.013:.3f}")[:2] == b"\xff\xd8"
    return {"killed": killed, "asked": len(clips) * 3, "answered": answered}


def children_of(process: int) -> set[int]:
    """Returns the processes that the threads of a process have started."""
    found: set[int] = set()
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):  # the thread has ended meanwhile
            found |= set(map(int, (thread / "children").read_text(encoding="ascii").split()))
    return found


def killed_while_indexing(cache: Path, copies: int) -> dict[str, Any]:
    """Kills the server while it indexes, starts it anew, and counts what is indexed."""
    videos = cache / "copies"
    videos.mkdir()
    for number in range(copies):
        for file in (ROOT / "samples").iterdir():
            # Other bytes behind the end, so that none is known as a copy.
            (videos / f"{number} {file.name}").write_bytes(file.read_bytes() + bytes(number + 1))
    with server("--videos", videos) as served:
        while not json.loads(served.get("/v1/index"))["done"] >= 5:
            time.sleep(0.01)
        served.process.kill()
    with server("--videos", videos) as again:
        kept = json.loads(again.get("/v1/videos"))["total"]
        wait_until_indexed(again)
        total = json.loads(again.get("/v1/videos"))["total"]
        failed = len(json.loads(again.get("/v1/failures"))["failures"])
    return {"files": copies * len(list((ROOT / "samples").iterdir())), "kept": kept, "indexed": total, "failed": failed}


def wait_until_indexed(served: Server) -> None:
    """Waits until the update is done."""
    while json.loads(served.get("/v1/index"))["running"]:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
