"""A connection of uvicorn that gives a client a limited time for the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_with(header_seconds: float) -> type[H11Protocol]:
    """Returns a kind of connection that is closed when the head of a request is not there in time.

    uvicorn ends a connection on which nothing comes after a response, but not one on which a head comes letter by
    letter, or never.

    Args:
        header_seconds: Time for a head.
    """

    class _TimedConnection(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _known_cycle: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
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
