"""The service as a process: its address, its end, and what it says when it cannot run."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbi_infer.errors import InputError
from hbi_infer.serve.running import address_of, check_certificate, listen
from hbi_infer.serve.settings import ServeOptions
from tests.builders.command_line import run
from tests.builders.service import Running, running, wait_until_indexed


@pytest.fixture(scope="module")
def service(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    env = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    with running("--videos", library / "videos", "--bundle", library / "bundle", env=env) as started:
        wait_until_indexed(started.client)
        yield started


def test_a_search_and_a_video_over_real_http(service: Running) -> None:
    found = service.client.post("/v1/search", json={"query": "red", "top_k": 1}).json()["results"][0]
    assert found["path"] == "red.mp4"
    part = service.client.get(found["stream"], headers={"range": "bytes=0-99"})
    assert (part.status_code, len(part.content)) == (206, 100)
    assert service.client.get(found["thumbnail"]).content[:2] == b"\xff\xd8"


def test_a_second_server_at_its_port(service: Running, library: Path) -> None:
    port = service.address.rpartition(":")[2].strip("/")
    done = run("serve", "--videos", library / "videos", "--bundle", library / "bundle", "--port", port)
    assert done.returncode == 1
    assert re.search(rf"error: cannot listen at 127.0.0.1 port {port} \(.*\): another program may have it", done.stderr)


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 70_000, b"\x16\x03\x01\x02", b"GET /" + b"a" * 70_000]
)
def test_heads_that_are_none(service: Running, head: bytes) -> None:
    host, port = re.findall(r"//(.*):(\d+)/", service.address)[0]
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert service.client.get("/health/live").status_code == 200


def test_it_stops_gracefully(library: Path, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    for how in (signal.SIGINT, signal.SIGTERM):
        with (
            running("--videos", library / "videos", "--bundle", library / "bundle", env=env) as started,
            started.client.stream("GET", "/v1/index/events") as listening,
        ):
            assert next(listening.iter_lines()) == "event: progress"
            assert started.stop(how) == 0


def test_an_address_that_is_not_of_this_machine() -> None:
    for host in ("203.0.113.9", "no such host.invalid"):
        with pytest.raises(InputError, match=r"address|listen"):
            listen(host, 0)


def test_addresses_for_a_browser(tmp_path: Path) -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", r"\[::1\]"), ("::", r"\[::1\]")):
        try:
            listener = listen(host, 0)
        except InputError:
            assert ":" in host, "a machine without IPv6"
            continue
        with listener:
            assert re.fullmatch(
                rf"http://{shown}:\d+/", address_of(ServeOptions(videos=(tmp_path,), host=host), listener)
            )


def test_tls(library: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    arguments = [
        "--videos",
        library / "videos",
        "--bundle",
        library / "bundle",
        "--certificate",
        certificate,
        "--key",
        key,
    ]
    with running(*arguments, env={"XDG_CACHE_HOME": str(tmp_path)}, verify=False) as started:
        assert started.address.startswith("https://")
        assert started.client.get("/health/ready").text == "ready\n"
    key.write_text("no key")
    with pytest.raises(InputError, match="cannot be used"):
        check_certificate(ServeOptions(videos=(tmp_path,), certificate=certificate, key=key))
