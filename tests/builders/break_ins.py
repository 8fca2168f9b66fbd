"""Attempts to break into a running service, each with the outcome that it had."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.builders.service import Running, running, wait_until_indexed, write_library
from tests.builders.tiny_bundle import write_video

SECRET = "the content of a secret file"
TOKEN = "the-token-of-this-test-0123456789"
NAME = 'a"; filename=evil.html\r\nX-Evil: 1 <img src=x onerror=alert(1)>.mp4'


@dataclass
class Target:
    """Two services over one library: one without a token, one with it; and what they wrote to their output."""

    folder: Path
    open: Running
    guarded: Running

    @property
    def videos(self) -> dict[str, dict[str, Any]]:
        """Videos by path."""
        return {video["path"]: video for video in self.open.client.get("/v1/videos").json()["videos"]}

    def video(self, name: str) -> dict[str, Any]:
        return next(video for path, video in self.videos.items() if path.startswith(name))

    def clip(self, name: str) -> str:
        return str(self.open.client.get(f"/v1/videos/{self.video(name)['id']}").json()["clips"][0]["id"])


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """Starts both services; files are swapped once they are indexed."""
    write_library(folder)
    videos = folder / "videos"
    for name in ("swapped.mp4", "pipe.mp4", NAME):
        write_video(videos / name, "red", "blue")
    (folder / "secret.mp4").write_text(SECRET)
    (folder / "outside").mkdir()
    write_video(folder / "outside" / "film.mp4", "green")
    (videos / "link.mp4").symlink_to(folder / "outside" / "film.mp4")
    (videos / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{folder}/secret.mp4\n")
    (folder / "token").write_text(TOKEN)
    env = {"XDG_CACHE_HOME": str(folder / "cache")}
    served = ["--videos", videos, "--bundle", folder / "bundle"]
    with running(*served, env=env) as first:
        wait_until_indexed(first.client)
        (videos / "swapped.mp4").unlink()
        (videos / "swapped.mp4").symlink_to(folder / "secret.mp4")
        (videos / "pipe.mp4").unlink()
        os.mkfifo(videos / "pipe.mp4")
        with running(*served, "--no-update", "--host", "0.0.0.0", "--token-file", folder / "token", env=env) as second:
            yield Target(folder, first, second)


def raw(served: Running, content: bytes, *, seconds: float = 10.0) -> str:
    """Sends bytes and returns all that comes back."""
    host, port = re.findall(r"//(.*):(\d+)/", served.address)[0]
    answer = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection, suppress(OSError):
        connection.sendall(content)
        while not _is_whole(answer):
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    return answer.decode("latin-1")


def _is_whole(answer: bytes) -> bool:
    head, ends, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(ends and length and len(body) >= int(length[1]))


def status_of(answer: str) -> str:
    """The status of an answer, and the kind of its problem."""
    found = re.match(r"HTTP/1.1 (\d+)", answer)
    if not found:
        return "connection closed" if not answer else "no HTTP"
    kind = re.search(r'"type": "urn:hbi-infer:problem:([\w-]+)"', answer)
    return found[1] + (f" {kind[1]}" if kind else "")


def get(served: Running, path: str, *headers: str, method: str = "GET", host: str = "localhost", body: str = "") -> str:
    """Sends a request as it stands, byte by byte."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return raw(served, ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1"))


def tried(served: Running, path: str, *headers: str, **more: str) -> str:
    answer = get(served, path, *headers, **more)
    assert SECRET not in answer
    assert "root:" not in answer
    return status_of(answer)


def search(served: Running, body: str, *headers: str) -> str:
    return tried(served, "/v1/search", *headers, method="POST", body=body)


def picture(served: Running, content: bytes) -> str:
    answer = served.client.post("/v1/search", files={"picture": ("../../evil.png", content)})
    assert SECRET not in answer.text
    return f"{answer.status_code} {answer.json().get('type', '').rpartition(':')[2]}".strip()


def bomb() -> bytes:
    """A PNG of a kilobyte that says that it has 900 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def guesses(at: Target) -> str:
    """Tries wrong tokens until they are refused altogether."""
    seen = [status_of(get(at.guarded, "/v1/videos", f"Authorization: Bearer guess-{number}")) for number in range(12)]
    return f"{seen[0]}, then {seen[-1]}"


def slow_body(at: Target) -> str:
    """Sends a head and half of a body, and waits: others are served meanwhile."""
    host, port = re.findall(r"//(.*):(\d+)/", at.open.address)[0]
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 100\r\n\r\n{")
        return "others are served" if at.open.client.post("/v1/search", json={"query": "red"}).is_success else "stuck"


def many_slow(at: Target) -> str:
    """Opens a hundred connections that say nothing."""
    host, port = re.findall(r"//(.*):(\d+)/", at.open.address)[0]
    connections = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
    try:
        return "others are served" if at.open.client.get("/v1/videos").is_success else "stuck"
    finally:
        for connection in connections:
            connection.close()


def moment_name(at: Target) -> str:
    """Downloads a moment of a video whose name would end a header."""
    answer = get(at.open, f"/v1/clips/{at.clip('a')}/moment")
    head = answer.partition("\r\n\r\n")[0].lower()
    return "200, the name is encoded" if "\nx-evil" not in head and "filename*=utf-8''a%22%3b" in head else head


def script_name(at: Target) -> str:
    """Lists a video whose name is HTML."""
    answer = at.open.client.get("/v1/videos")
    is_data = (
        answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    )
    return "200, as JSON that no browser takes for a page" if is_data else "200"


def preflight(at: Target) -> str:
    """Asks as a browser does before a request of another site."""
    answer = get(
        at.open, "/v1/search", "Origin: http://evil.example", "Access-Control-Request-Method: POST", method="OPTIONS"
    )
    return status_of(answer) + (", with CORS" if "access-control-allow" in answer.lower() else ", nothing is allowed")


def outside_filter(at: Target) -> str:
    """Searches only what lies beside the folder."""
    asked = {"query": "red", "filter": {"folder": "../outside"}}
    found = at.open.client.post("/v1/search", json=asked).json()["results"]
    return "found" if found else "200, nothing is found"


def playlist(at: Target) -> str:
    """Looks for a playlist that is named as a video and leads to a secret file."""
    failed = {each["path"]: each["reason"] for each in at.open.client.get("/v1/failures").json()["failures"]}
    return "not indexed" if "playlist.mp4" in failed and "playlist.mp4" not in at.videos else "indexed"


def old_cookie(at: Target) -> str:
    """Uses a cookie after its session has ended."""
    client = http.client.HTTPConnection(*re.findall(r"//(.*):(\d+)/", at.guarded.address)[0])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    client.request("POST", "/login", f"token={TOKEN}", form)
    response = client.getresponse()
    cookie = str(response.getheader("set-cookie")).partition(";")[0]
    response.read()
    before = status_of(get(at.guarded, "/v1/videos", f"Cookie: {cookie}"))
    get(at.guarded, "/logout", f"Cookie: {cookie}", "Content-Length: 0", method="POST")
    client.close()
    return f"{before} before, {status_of(get(at.guarded, '/v1/videos', f'Cookie: {cookie}'))} after"


def output(at: Target) -> str:
    """Reads what the guarded service wrote to its output, once it is killed."""
    at.guarded.process.kill()
    assert at.guarded.process.stdout is not None
    assert at.guarded.process.stderr is not None
    said = at.guarded.process.stdout.read() + at.guarded.process.stderr.read()
    return "no secret, no query" if TOKEN not in said and "guess-" not in said else said


def labels(at: Target) -> str:
    """Asks for made-up addresses, which could fill the memory of the metrics."""
    for number in range(30):
        get(at.open, f"/made-up-{number}")
    return "counted as one" if "made-up" not in at.open.client.get("/metrics").text else "each is kept"


def links(at: Target, name: str, what: str) -> str:
    video = at.video(name)
    path = video["stream"] if what == "stream" else f"/v1/clips/{at.clip(name)}/{what}"
    return tried(at.open, path)


OWN = "Origin: http://localhost"
ATTEMPTS: dict[str, Callable[[Target], str]] = {
    "a stranger's name leads to this machine (DNS rebinding)": lambda at: tried(
        at.open, "/v1/videos", host="evil.example"
    ),
    "the same, with localhost in the name": lambda at: tried(at.open, "/v1/videos", host="localhost.evil.example"),
    "the same, with X-Forwarded-Host: localhost": lambda at: tried(
        at.open, "/v1/videos", "X-Forwarded-Host: localhost", host="evil.example"
    ),
    "two Host headers": lambda at: tried(at.open, "/v1/videos", "Host: evil.example"),
    "another site's page sends a search": lambda at: search(at.open, '{"query": "red"}', "Origin: http://evil.example"),
    "a page without an origin (null) sends a search": lambda at: search(at.open, '{"query": "red"}', "Origin: null"),
    "another port of this machine sends a search": lambda at: search(
        at.open, '{"query": "red"}', "Origin: http://localhost:1"
    ),
    "another site's page shows a picture of ours": lambda at: tried(
        at.open, f"/v1/clips/{at.clip('red')}/thumbnail", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"
    ),
    "another site's page has ours in a frame": lambda at: tried(
        at.open, "/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"
    ),
    "another site asks what it may do (CORS)": preflight,
    "../ behind /page/": lambda at: tried(at.open, "/page/../../../../etc/passwd"),
    "the same, encoded": lambda at: tried(at.open, "/page/..%2f..%2f..%2fetc%2fpasswd"),
    "the same, encoded twice": lambda at: tried(at.open, "/page/%252e%252e%252fapp.py"),
    "the program's own source behind /page/": lambda at: tried(at.open, "/page/..%2fapp.py"),
    "a path in place of a video's id": lambda at: tried(at.open, "/v1/videos/%2fetc%2fpasswd/stream"),
    "../ in place of a video's id": lambda at: tried(at.open, "/v1/videos/..%2f..%2fsecret.mp4/stream"),
    "a NUL in a video's id": lambda at: tried(at.open, "/v1/videos/red.mp4%00/stream"),
    "a path as a field of the address": lambda at: tried(at.open, f"{at.video('red')['stream']}?path=/etc/passwd"),
    "an absolute address in the request line": lambda at: tried(at.open, "http://evil.example/v1/videos"),
    "../ as the folder of a filter": lambda at: (
        "200, nothing is found"
        if at.open.client.post("/v1/search", json={"query": "red", "filter": {"folder": "../outside"}}).json()[
            "results"
        ]
        == []
        else "found"
    ),
    "a video that is a link out of the folder, played": lambda at: links(at, "link", "stream"),
    "the same, its picture": lambda at: links(at, "link", "thumbnail"),
    "the same, downloaded": lambda at: links(at, "link", "moment"),
    "an indexed video that was replaced by a link to a secret": lambda at: links(at, "swapped", "stream"),
    "an indexed video that was replaced by a pipe": lambda at: links(at, "pipe", "stream"),
    "a playlist named .mp4 that leads to a secret file": playlist,
    "a name of a video that ends a header": moment_name,
    "a name of a video that is HTML": script_name,
    "a search of 1 MB": lambda at: search(at.open, json.dumps({"query": "a" * 2**20}), OWN),
    "a body that says it has 1 TB": lambda at: tried(
        at.open, "/v1/search", "Content-Length: 1099511627776", method="POST"
    ),
    "100,000 brackets as JSON": lambda at: search(at.open, "[" * 100_000),
    "a number of 10,000 digits": lambda at: search(at.open, '{"query": "red", "top_k": %s}' % ("9" * 10_000)),
    "a form in place of JSON": lambda at: tried(
        at.open, "/v1/search", "Content-Type: text/plain", "Content-Length: 2", method="POST"
    ),
    "a picture that is text": lambda at: picture(at.open, b"no picture"),
    "a picture of 900 million pixels in a kilobyte": lambda at: picture(at.open, bomb()),
    "an SVG that includes a file": lambda at: picture(
        at.open, b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    ),
    "a playlist as a picture": lambda at: picture(at.open, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
    "a data URL that is an address": lambda at: tried(
        at.open, "/v1/embeddings", method="POST", body='{"input": "data:image/png;base64,/etc/passwd"}'
    ),
    "a range beyond the end": lambda at: tried(at.open, at.video("red")["stream"], "Range: bytes=999999999999-"),
    "a thousand ranges": lambda at: status_of(
        get(at.open, at.video("red")["stream"], "Range: bytes=" + ",".join(["0-"] * 1000)).partition("\r\n\r\n")[0]
    ),
    "a head of 70 KB": lambda at: tried(at.open, "/", "X: " + "a" * 70_000),
    "Content-Length and Transfer-Encoding together": lambda at: tried(
        at.open, "/v1/search", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST"
    ),
    "TLS bytes at a port without TLS": lambda at: status_of(
        raw(at.open, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    ),
    "a WebSocket": lambda at: tried(
        at.open, "/v1/videos", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
    ),
    "DELETE of a video": lambda at: tried(at.open, f"/v1/videos/{at.video('red')['id']}", method="DELETE"),
    "TRACE": lambda at: tried(at.open, "/", method="TRACE"),
    "a body that stops halfway": slow_body,
    "a hundred connections that say nothing": many_slow,
    "made-up addresses to fill the metrics": labels,
    "no token": lambda at: tried(at.guarded, "/v1/videos"),
    "the token in the address": lambda at: tried(at.guarded, f"/v1/videos?token={TOKEN}"),
    "half of the token": lambda at: tried(at.guarded, "/v1/videos", f"Authorization: Bearer {TOKEN[:16]}"),
    "the token as a cookie": lambda at: tried(at.guarded, "/v1/videos", f"Cookie: hbi-0={TOKEN}"),
    "the token as Basic authorisation": lambda at: tried(
        at.guarded, "/v1/videos", f"Authorization: Basic {base64.b64encode(TOKEN.encode()).decode()}"
    ),
    "a path around the login": lambda at: tried(at.guarded, "/login/../v1/videos"),
    "the same, with /page/ in front": lambda at: tried(at.guarded, "/page/..%2f..%2fv1/videos"),
    "a cookie after its session": old_cookie,
    "guessing tokens": guesses,
    "secrets in what the service writes": output,
}
"""Attempt -> what tries it. The last ones use up the guarded service."""


def try_all(folder: Path) -> dict[str, str]:
    """Makes every attempt; the outcome of each."""
    with target(folder) as at:
        outcomes = {name: attempt(at) for name, attempt in ATTEMPTS.items()}
        time.sleep(0.1)
        assert at.open.client.get("/health/ready").text == "ready\n", "the service goes on"
    return outcomes


def table(outcomes: dict[str, str]) -> str:
    """The attempts and their outcomes as a table of a page."""
    rows = [f"| {name} | {outcome} |" for name, outcome in outcomes.items()]
    return "\n".join(["| attempt | outcome |", "|---|---|", *rows])
