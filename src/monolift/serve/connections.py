"""Connections: how many, and how long each may take over a request's head, stand idle, or leave an answer unread.

uvicorn limits requests and idle connections, but waits for ever for a head that does not end, for a client that does not read
its answer, and for the rest of a body that was refused. `protocol` adds a time limit to each of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

DESCRIPTORS_KEPT = 64  # file descriptors that are not for connections


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may cost before a request is complete."""

    most: int = 256
    """Connections at one moment."""
    head_seconds: float = 10.0
    """From a connection, or the first byte of a further request, to the end of the request's head."""
    rest_seconds: float = 30.0
    """In which the rest of a body that was refused has to come: clients send all of it before they look at the answer."""
    idle_seconds: float = 5.0
    """Between an answer and the next request."""
    grace_seconds: float = 1.0
    """After which a connection without a whole head gives way to a new one, where there are as many as may be."""
    stalled_seconds: float = 20.0
    """In which a client has to take 64 KB of its answer."""


def within_descriptors(limits: ConnectionLimits) -> ConnectionLimits:
    """At most as many connections as this process may hold file descriptors, some of which are for other things."""
    try:
        import resource  # not on Windows
    except ImportError:
        return limits
    from dataclasses import replace

    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < limits.most + DESCRIPTORS_KEPT:
        wanted = limits.most + DESCRIPTORS_KEPT
        raised = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
            allowed = raised
        return replace(limits, most=max(1, min(limits.most, allowed - DESCRIPTORS_KEPT)))
    return limits


class Limited(H11Protocol):
    """uvicorn's HTTP protocol with a bound on connections, and on the time that a client may keep one without use."""

    limits: ConnectionLimits
    on_refused: Callable[[str], None]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._since = 0.0  # the last moment at which it was of use: made, or an answer complete
        self._clock: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # --- as asyncio calls them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.limits.most and not self._make_room():
            self.on_refused("connections")
            self.connections.discard(self)
            transport.write(_BUSY)
            self._end(0.5)
        else:
            self._start_clock()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._answering():
            self._start_clock()  # unless it runs: no byte that trickles in may set it back
        super().data_received(data)
        if self._answering():
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_stall()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_stall()
        self._stall = self.loop.call_later(self.limits.stalled_seconds, self._stalled)

    def resume_writing(self) -> None:
        self._stop_stall()
        super().resume_writing()

    # --- as uvicorn calls them

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()
        if self._answering():  # a request that had arrived already
            self._stop_clock()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end(self.limits.stalled_seconds)  # closing waits for what is unread

    # --- room

    def _make_room(self) -> bool:
        """Closes the connection that has sent nothing whole for longest; whoever means well sends at once."""
        open_ones = [c for c in self.connections if isinstance(c, Limited) and c is not self]
        slow = [
            c for c in open_ones if not c._answering() and self._since - c._since > self.limits.grace_seconds
        ]
        if not slow:
            return False
        oldest = min(slow, key=lambda c: c._since)
        self.on_refused("connections")
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    # --- time

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_clock(self) -> None:
        if self._clock is None:
            rest = self.cycle is not None and self.cycle.more_body
            seconds = self.limits.rest_seconds if rest else self.limits.head_seconds
            self._clock = self.loop.call_later(seconds, self._late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _late(self) -> None:
        self._clock = None
        if self._answering() or self.transport.is_closing():
            return
        self.on_refused("head_time")
        if getattr(self, "cycle", None) is None:  # uvicorn types it as if it were always there
            self.transport.write(_LATE)
        self._end(0.5)

    def _stalled(self) -> None:
        self._stall = None
        self.on_refused("stalled")
        self.transport.abort()

    def _end(self, grace: float) -> None:
        """Closes; what the client has not read by then is lost."""
        self.transport.close()
        self.loop.call_later(grace, self.transport.abort)


def protocol(limits: ConnectionLimits, on_refused: Callable[[str], None]) -> type[H11Protocol]:
    """The protocol class for ``uvicorn.Config(http=...)``.

    Args:
        limits: of the connections.
        on_refused: called with "connections", "head_time" or "stalled" for each connection that is closed for it.
    """
    return type("Limited", (Limited,), {"limits": limits, "on_refused": staticmethod(on_refused)})


def _plain(status: str, message: str) -> bytes:
    body = json.dumps({"error": {"field": "", "message": message}}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Retry-After: 1\r\nConnection: close\r\n\r\n" + body


_BUSY = _plain("503 Service Unavailable", "too many connections")
_LATE = _plain("408 Request Timeout", "the request's head did not arrive in time")
