"""Listen on a socket until a signal ends the server."""

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from qa_lm.errors import UserError

HEADER_SECONDS = 10.0
"""Seconds within which the headers of a request must have arrived."""
IDLE_SECONDS = 30
"""Seconds after which a connection without a request is closed."""


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket; it does not listen yet.

    Raises:
        UserError: the host is unknown, or the port cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}: no such host; give an address of this machine, such as 127.0.0.1") from None
    found = socket.socket(family, kind, protocol)
    if sys.platform != "win32":
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except PermissionError:
        found.close()
        raise UserError(f"--port {port}: this user may not use it; choose one from 1024 to 65535") from None
    except OSError as error:
        found.close()
        why = "is in use" if "in use" in str(error) else f"cannot be used: {error.strerror or error}"
        raise UserError(f"--port {port}: {host}:{port} {why}; choose another, or 0 for any that is free") from None
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(bound: socket.socket, host: str) -> str:
    """The address of the page."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}/"


class _Protocol(H11Protocol):
    """HTTP that closes a connection whose next headers do not come to an end; uvicorn waits for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()


def listen(app: Starlette, bound: socket.socket, seconds: float, listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are finished, and the signal is raised again.

    Args:
        app: the application.
        bound: its socket.
        seconds: how long requests in progress may take after the signal.
        listening: called when the server listens.

    Raises:
        UserError: another process listens there.
    """
    options: dict[str, Any] = {"http": _Protocol, "ws": "none", "lifespan": "on", "loop": "asyncio"}
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(seconds)),
        **options,
    )
    try:
        _Server(config, listening).run([bound])
    except OSError as error:  # another process had bound the port too, and listens now
        raise UserError(f"--port: cannot listen: {error.strerror or error}; choose another") from None
