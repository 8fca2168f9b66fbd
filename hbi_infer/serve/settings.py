"""Settings of the service: what it serves, where it listens, who may come in, and the limits of each request."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from hbi_infer.errors import InputError
from hbi_infer.files import is_folder

LEAST_TOKEN_LETTERS = 16
"""Least length of a token: 16 random letters of base64 take longer to guess than the service will run."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of requests. Beyond them a request gets a problem document, and the service goes on.

    Attributes:
        json_bytes: Size of a body that is JSON.
        picture_bytes: Size of a body with a picture.
        text_letters: Length of a sentence.
        texts: Number of sentences of a request.
        results: Number of results of a page.
        offset: Number of results, or videos, that may be skipped.
        threads: Number of searches that are done at a time; they score the clips together.
        waiting: Number of searches that may wait for a thread.
        media_workers: Number of processes that make thumbnails.
        media_waiting: Number of thumbnails that may wait for a process.
        uploads_waiting: Number of pictures to search with that may wait.
        task_threads: Number of questions, captions and explanations that compute at a time.
        tasks_waiting: Number of those that may wait.
        conversions_waiting: Number of videos to convert, and moments to cut, that may wait.
        request_seconds: Time for a search or a thumbnail, the wait included.
        long_seconds: Time for captions, moments and converted videos.
        convert_video_seconds: Duration of the longest video whose pictures are encoded anew to be played.
        convert_cache_bytes: Disk space for converted videos.
        thumbnail_cache_bytes: Memory for thumbnails.
        header_seconds: Time in which a client sends the head of a request.
        body_seconds: Time in which a client sends the body.
        stall_seconds: Time in which a client takes some of what is sent.
        connections: Number of connections.
        stop_seconds: Time that running requests are given when the service stops.
    """

    json_bytes: int = 256 * 1024
    picture_bytes: int = 32 * 2**20
    text_letters: int = 2000
    texts: int = 16
    results: int = 200
    offset: int = 10_000
    threads: int = 16
    waiting: int = 128
    media_workers: int = 2
    media_waiting: int = 256
    uploads_waiting: int = 8
    task_threads: int = 2
    tasks_waiting: int = 32
    conversions_waiting: int = 8
    request_seconds: float = 30.0
    long_seconds: float = 180.0
    convert_video_seconds: float = 1800.0
    convert_cache_bytes: int = 4 * 2**30
    thumbnail_cache_bytes: int = 64 * 2**20
    header_seconds: float = 15.0
    body_seconds: float = 60.0
    stall_seconds: float = 60.0
    connections: int = 512
    stop_seconds: int = 10


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of the service: the folders and models, the address, and who may come in.

    Attributes:
        videos: Folders of videos.
        bundles: Names of models, as `HBI.load` takes them; each is served with each folder.
        device: Name of the device that the models run on.
        host: Address to listen at.
        port: Port to listen at; 0 takes any that is free.
        token: Secret that a client must know; None lets everyone in.
        names: Further names under which clients may call the service, such as "videos.local".
        certificate: File of the certificate for TLS; None serves plain HTTP.
        key: File of its key.
        update: Whether the folders are indexed at the start.
        workers: Number of processes that decode videos for the index.
        limits: Limits of requests.
    """

    videos: tuple[Path, ...]
    bundles: tuple[str | None, ...] = (None,)
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    update: bool = True
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.videos or not self.bundles:
            raise InputError("there is nothing to serve: give at least one folder of videos and one model")
        for folder in self.videos:
            if not is_folder(folder):
                raise InputError(f"there is no folder {folder}: give a folder of videos to serve")
        if not 0 <= self.port <= 65535:
            raise InputError(f"port is {self.port}; it must be from 0 (any that is free) to 65535")
        if self.token is not None and len(self.token) < LEAST_TOKEN_LETTERS:
            raise InputError(f"the token has {len(self.token)} letters; give one of at least {LEAST_TOKEN_LETTERS}")
        if (self.certificate is None) != (self.key is None):
            raise InputError("a certificate and its key go together: give both for TLS, or none")

    @property
    def is_secure(self) -> bool:
        """Whether clients come by TLS."""
        return self.certificate is not None


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Returns a token that nobody can guess."""
    return secrets.token_urlsafe(32)
