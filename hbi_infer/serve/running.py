"""Runs the service: the address, TLS, the time that clients have, and a stop that lets running requests end."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable

import uvicorn

from hbi_infer.errors import InputError
from hbi_infer.serve.app import build_app
from hbi_infer.serve.connection import protocol_with
from hbi_infer.serve.service import Service
from hbi_infer.serve.settings import ServeOptions

KEEP_ALIVE_SECONDS = 30
HEAD_BYTES = 32 * 1024
BACKLOG = 512


def serve(options: ServeOptions, on_start: Callable[[str], None]) -> None:
    """Serves until it is interrupted.

    Args:
        options: Options of the service.
        on_start: Told the address once connections are taken.

    Raises:
        InputError: The address cannot be used, or the certificate cannot.
        HBIError: A model or an index cannot be used.
    """
    listener = listen(options.host, options.port)
    try:
        check_certificate(options)
        limits = options.limits
        app = build_app(options)
        config = uvicorn.Config(
            app,
            http=protocol_with(limits.header_seconds, limits.connections),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,  # addresses hold what people search for
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=limits.stop_seconds,
            h11_max_incomplete_event_size=HEAD_BYTES,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        _Server(config, app.state.service, lambda: on_start(address_of(options, listener))).run(sockets=[listener])
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """A server that tells when it takes connections, and when it takes no more."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_ready = False
        await super().shutdown(sockets)
        self._captured_signals.clear()  # they have done what they were sent for


def listen(host: str, port: int) -> socket.socket:
    """Takes an address, before anything else is done.

    Raises:
        InputError: It is taken already, or cannot be used.
    """
    name = host.strip("[]")
    try:
        found = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        # With the protocol stated, asyncio sends what is written at once: the head and the body of a response do not
        # wait 40 ms for each other.
        kind, _, protocol, _, address = found[0]
        listener = socket.socket(kind, socket.SOCK_STREAM, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"there is no address {host} ({error}): give one of this machine with --host") from error
    try:
        # A port is free again at once after a stop; two servers at one port are refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen at {host} port {port} ({error.strerror}): another program may have it; give another --port"
        ) from error
    return listener


def check_certificate(options: ServeOptions) -> None:
    """Refuses a certificate that cannot be used.

    Raises:
        InputError: It cannot be read, or the key is of another one.
    """
    if options.certificate is None:
        return
    try:
        assert options.key is not None
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"the certificate {options.certificate} and the key {options.key} cannot be used ({error}): give PEM files"
        ) from error


def address_of(options: ServeOptions, listener: socket.socket) -> str:
    """Returns the address that a browser on this machine takes."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)  # noqa: S104
    host = f"[{host}]" if ":" in host.strip("[]") and not host.startswith("[") else host
    return f"{'https' if options.is_secure else 'http'}://{host}:{port}/"
