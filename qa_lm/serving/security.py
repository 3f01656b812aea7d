"""Who may ask, and how much: middleware before the routes."""

import asyncio
import secrets
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qa_lm.serving.protocol.errors import ApiError

NO_ACTIVE_CONTENT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY = f"{NO_ACTIVE_CONTENT}; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
"""Content security policies: of JSON, and of the page, whose script and style come from the server itself."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
WITHOUT_KEY = ("/", "/page.js", "/page.css", "/health")
"""Paths that need no key: they say nothing about the model, and the page asks for the key."""


@dataclass(frozen=True)
class Limits:
    """What a request may cost."""

    body_bytes: int = 1_000_000
    body_seconds: float = 10.0
    """Seconds within which the whole body must have arrived."""


class Errors:
    """Turns exceptions into responses, and adds the headers that every response has. No response has a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message["headers"])
                headers.setdefault("content-security-policy", NO_ACTIVE_CONTENT)
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ApiError as error:
            if started:
                raise
            await error.response(scope, receive, sending)
        except Exception as error:
            failure = unexpected(error)
            if not started:
                await failure.response(scope, receive, sending)


def unexpected(error: BaseException) -> ApiError:
    """Report an error of the server: its traceback goes to standard error, the client gets a number to quote."""
    number = secrets.token_hex(6)
    lines = "".join(traceback.format_exception(error))
    print(f"error {number} in answering a request:\n{lines}", file=sys.stderr, flush=True)
    return ApiError(f"the server failed; its log has the details as error {number}", 500, code="internal_error")


class Hosts:
    """Refuses requests that reached the server under another name, as by DNS rebinding, and pages of other origins.

    Args:
        app: what is guarded.
        names: names of the server, without a port.
        origin: the foreign origin that may ask; None for none.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str], origin: str | None) -> None:
        self.app, self.names, self.origin = app, frozenset(name.lower() for name in names), origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check(headers.getlist("host"), headers.get("origin"))
        await self.app(scope, receive, send)

    def _check(self, hosts: Sequence[str], origin: str | None) -> None:
        if len(hosts) != 1 or host_name(hosts[0]) not in self.names:
            raise ApiError(
                "this server does not go by the name in the Host header; start it with --allow-host NAME",
                403,
                code="host_not_allowed",
            )
        if origin is not None and origin != self.origin and origin.partition("://")[2].lower() != hosts[0].lower():
            raise ApiError(
                "requests from pages of other origins are refused; start the server with --cors ORIGIN",
                403,
                code="origin_not_allowed",
            )


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


class Keys:
    """Refuses requests without the key.

    Args:
        app: what is guarded.
        key: the key; None for no key.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app, self.key = app, None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and self.key is not None and scope["path"] not in WITHOUT_KEY:
            self._check(Headers(scope=scope).get("authorization", ""), self.key)
        await self.app(scope, receive, send)

    def _check(self, given: str, key: bytes) -> None:
        scheme, _, found = given.partition(" ")
        # In constant time, so that the time says nothing about the key.
        if scheme.lower() != "bearer" or not secrets.compare_digest(found.strip().encode("latin-1"), key):
            raise ApiError(
                "a key is needed: send the header Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


class Bodies:
    """Refuses bodies that are too large, or arrive too slowly.

    Args:
        app: what is guarded.
        limits: the limits.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.limits.body_bytes:
            raise self._too_large()
        loop = asyncio.get_running_loop()
        end, received, complete = loop.time() + self.limits.body_seconds, 0, False

        async def receiving() -> Message:
            nonlocal received, complete
            if complete:  # what follows is that the client leaves
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise ApiError("the body did not arrive in time", 408, headers={"connection": "close"}) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.limits.body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, receiving, send)

    def _too_large(self) -> ApiError:
        limit = self.limits.body_bytes
        return ApiError(f"the body has more than {limit:,} bytes", 413, headers={"connection": "close"})
