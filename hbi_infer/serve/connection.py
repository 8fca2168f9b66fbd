"""A connection of uvicorn: a limited time for the head of a request, and refusals that are problem documents."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hbi_infer.serve.guard import HEADERS
from hbi_infer.serve.problems import bad_input, busy

_NO_HTTP = bad_input("what came is no request of HTTP/1.1, or its head is too large: send one, or https where it is")
_TOO_MANY = busy("connections")
_REFUSED = HEADERS | {"connection": "close"}


def protocol_with(header_seconds: float, most: int) -> type[H11Protocol]:
    """Returns a kind of connection that is closed when the head of a request is not there in time.

    uvicorn ends a connection on which nothing comes after a response, but not one on which a head comes letter by
    letter, or never.

    Args:
        header_seconds: Time for a head.
        most: Number of connections that are served at a time.
    """

    class _TimedConnection(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _known_cycle: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                self.app = _TOO_MANY.response(_REFUSED)
            self._begin()

        def data_received(self, data: bytes) -> None:
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._begin()
            super().data_received(data)
            if self.cycle is not self._known_cycle:
                self._known_cycle = self.cycle
                self._end()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says more
            response = _NO_HTTP.response(_REFUSED)
            head = h11.Response(status_code=response.status_code, headers=response.raw_headers)
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _begin(self) -> None:
            self._timer = self.loop.call_later(header_seconds, self._give_up)

        def _end(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self.transport.close()

    return _TimedConnection
