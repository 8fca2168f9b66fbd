"""A small hub on loopback: its paths, headers and faults, over real HTTP, for models in folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

INFO = re.compile(r"/api/models/([^/]+/[^/]+)/revision/(.+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
REVISIONS = ("main", "v1")
"""Revisions that mean a model's newest commit."""
LARGE_BYTES = 1000
"""Files of at least this size are stored as the hub stores large ones, with a SHA-256."""


@dataclass
class Faults:
    """What goes wrong; all may be changed while the server runs.

    Attributes:
        gated: Models whose files need the token.
        private: Models that are only there for those with the token.
        cut_after: File -> number of bytes after which a connection is cut, every time that the file is asked for.
        cuts: How many connections are cut before files come whole; None cuts all.
        altered: Files of which the first byte is another one than the hash is of.
        longer: Files behind which a byte too many comes.
        hidden: Files that are listed and not given.
        status: Status with which every request is answered.
        page: Text with which every request is answered, as a login page does.
        stated_bytes: File -> size that is stated in place of its own.
        seconds: Wait before each answer with a file.
    """

    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    cut_after: dict[str, int] = field(default_factory=dict)
    cuts: int | None = None
    altered: set[str] = field(default_factory=set)
    longer: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    status: int | None = None
    page: str = ""
    stated_bytes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """A request that came: method, path with its query, and headers by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Hub:
    """A running hub.

    Args:
        models: Owner and name -> folder with the model's files.
    """

    token = "hf_test_token"

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.models = dict(models)
        self.faults = Faults()
        self.requests: list[Request] = []
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked may be gone
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Ends the server; it refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, model: str) -> str:
        """Commit of a model: it changes with the names and the content of its files."""
        folder = self.models[model]
        content = [f"{path.name} {hashlib.sha1(path.read_bytes()).hexdigest()}" for path in sorted(folder.iterdir())]
        return hashlib.sha1("\n".join(content).encode()).hexdigest()

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables of a process that uses this hub, with all that it keeps below a folder."""
        names = ("cache", "config", "data")
        return {
            **{f"XDG_{name.upper()}_HOME": str(folder / name) for name in names},
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            "NO_PROXY": "127.0.0.1",
        }

    def asked(self) -> list[str]:
        """Paths of the requests so far, each with its method."""
        return [f"{request.method} {request.path}" for request in self.requests]


def ask_in_this_process(hub: Hub, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let `huggingface_hub` in this process ask a hub, with an empty cache and no token; it reads variables once."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.delenv("HF_TOKEN", raising=False)


@contextmanager
def running_hub(models: Mapping[str, Path]) -> Iterator[Hub]:
    """A hub that serves models from folders."""
    hub = Hub(models)
    try:
        yield hub
    finally:
        hub.close()


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def do_GET(self) -> None:
        """Answer."""
        hub = self.served
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.requests.append(Request(self.command, self.path, headers))
        path = unquote(urlsplit(self.path).path)
        if hub.faults.status or hub.faults.page:
            self._answer(hub.faults.status or 200, hub.faults.page.encode())
        elif found := INFO.fullmatch(path):
            self._info(found[1], found[2])
        elif found := FILE.fullmatch(path):
            self._file(*found.groups())
        else:
            self._refuse(404, "RepoNotFound")

    def do_HEAD(self) -> None:
        """Say of a file which commit it is of, and its hash and size."""
        found = FILE.fullmatch(unquote(urlsplit(self.path).path))
        path = self.served.models[found[1]] / found[3] if found else Path()
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        file = described(path)
        large = file.get("lfs")
        self.send_response(200)
        self.send_header("ETag", f'"{large["sha256"] if isinstance(large, dict) else file["blobId"]}"')
        self.send_header("X-Repo-Commit", self.served.commit(found[1] if found else ""))
        self.send_header("Content-Length", str(file["size"]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", X_Error_Code=code, X_Error_Message=f"refused: {code}")

    def _may_see(self, model: str) -> bool:
        """Whether there is a model, for the one who asks."""
        hub = self.served
        return model in hub.models and (model not in hub.faults.private or self._has_token())

    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.served.token}"

    def _info(self, model: str, revision: str) -> None:
        if not self._may_see(model):
            self._refuse(401, "RepoNotFound")
            return
        commit = self.served.commit(model)
        if revision not in (*REVISIONS, commit):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [described(path) for path in sorted(self.served.models[model].iterdir())]
        for sibling in siblings:
            sibling["size"] = self.served.faults.stated_bytes.get(str(sibling["rfilename"]), sibling["size"])
        gated = "manual" if model in self.served.faults.gated else False
        document = {"id": model, "sha": commit, "private": False, "gated": gated, "siblings": siblings}
        self._answer(200, json.dumps(document).encode(), Content_Type="application/json")

    def _file(self, model: str, revision: str, name: str) -> None:
        faults = self.served.faults
        if not self._may_see(model) or revision not in (*REVISIONS, self.served.commit(model)):
            self._refuse(404, "RevisionNotFound")
            return
        if model in faults.gated and not self._has_token():
            self._refuse(401, "GatedRepo")
            return
        path = self.served.models[model] / name
        if not path.is_file() or name in faults.hidden:
            self._refuse(404, "EntryNotFound")
            return
        threading.Event().wait(faults.seconds)  # tests let time.sleep do nothing
        content = path.read_bytes()
        if name in faults.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        if name in faults.longer:
            content += b"!"
        self._send(name, content)

    def _send(self, name: str, content: bytes) -> None:
        """Send a file, from where it is asked for, and perhaps not to its end."""
        faults = self.served.faults
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if name in faults.cut_after and faults.cuts != 0:
            faults.cuts = faults.cuts and faults.cuts - 1
            self.wfile.write(rest[: max(faults.cut_after[name] - start, 0)])
            self.close_connection = True
            return
        self.wfile.write(rest)


def described(path: Path) -> dict[str, object]:
    """What the hub says of a file."""
    content = path.read_bytes()
    size = len(content)
    document: dict[str, object] = {
        "rfilename": path.name,
        "size": size,
        "blobId": hashlib.sha1(b"blob %d\0" % size + content).hexdigest(),
    }
    if size >= LARGE_BYTES:
        document["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
    return document


def write_random_model(folder: Path, weights_bytes: int = 100_000) -> Path:
    """Files named as those of a model of the hub; no model, but all that a download needs."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "tokenizer.json").write_text("{" + " " * 2 * LARGE_BYTES + "}")
    (folder / "README.md").write_text("# A model")
    (folder / "model.safetensors").write_bytes(os.urandom(weights_bytes))
    (folder / "pytorch_model.bin").write_bytes(os.urandom(100))
    return folder
