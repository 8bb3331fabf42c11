"""Who may ask: the Host and Origin headers against the allowed names, the bearer token against the secret.

A page of a foreign site can make a browser send requests to this machine, by a name of its own that resolves to 127.0.0.1 (DNS
rebinding): such a request names the foreign host. /health stays open, for monitoring; the page at / holds nothing and asks for
the token itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from monolift.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::", "")  # addresses that stand for all of a machine's
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Hosts:
    """The names by which clients may call the service.

    Always the loopback names. A service that listens beyond loopback is also reached by the address it listens on, by this
    machine's name and by plain IP addresses: only names can be rebound. ``more``: further names; "*" allows all.
    Raises InputError for a URL among them.
    """

    def __init__(self, listening: str = "127.0.0.1", more: Collection[str] = ()) -> None:
        self._all = "*" in more
        self._names = {_name_of(name) for name in (*LOOPBACK, *more)}
        self._addresses = listening not in LOOPBACK
        if self._addresses:
            self._names |= {socket.gethostname().lower()} | ({listening.lower()} - set(ANY))

    def allows(self, header: str) -> bool:
        """Whether a Host header's name (its port does not matter) is one of them."""
        if self._all:
            return True
        try:
            name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._names or (self._addresses and _is_address(name))


def _name_of(option: str) -> str:
    """The host name of an option, in lower case; its port does not matter. Raises InputError for a URL and for nothing."""
    name = option.strip().lower()
    if not name or "/" in name:
        raise InputError(f"allowed host: expected a name such as cars.example, got {option!r}")
    if name.count(":") == 1 or name.startswith("["):  # else a bare IPv6 address
        name = urlsplit(f"//{name}").hostname or ""
    return name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that refuses requests before anything of them is read.

    hosts: None allows every name; token: None asks for none. on_refused: called with "host", "origin" or "token".
    """

    def __init__(
        self, app: ASGIApp, hosts: Hosts | None, token: str | None, on_refused: Callable[[str], None]
    ) -> None:
        self._app, self._hosts, self._on_refused = app, hosts, on_refused
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
            return
        reason, response = problem
        self._on_refused(reason)
        await response(scope, receive, send)

    def _problem(self, scope: Scope) -> tuple[str, JSONResponse] | None:
        if scope["path"].startswith("/health/"):
            return None
        said: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            said.setdefault(name.lower(), []).append(value)
        if self._hosts is not None:
            host = said.get(b"host", [])
            if len(host) != 1 or not self._hosts.allows(host[0].decode("latin-1")):
                return "host", _refusal(
                    403, "host", "the service is not known by this name: --allow-host NAME"
                )
            for origin in said.get(b"origin", []):
                if not self._hosts.allows(_host_of(origin.decode("latin-1"))):
                    return "origin", _refusal(403, "origin", "pages of other sites are not answered")
        if self._token is not None and scope["path"] != "/" and not self._knows_token(said):
            wanted = {"WWW-Authenticate": "Bearer"}
            return "token", _refusal(401, "authorization", "expected Authorization: Bearer TOKEN", wanted)
        return None

    def _knows_token(self, said: dict[bytes, list[bytes]]) -> bool:
        given = said.get(b"authorization", [])
        kind, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        assert self._token is not None
        same = hmac.compare_digest(secret.strip(), self._token)  # in constant time
        return same and kind.lower() == b"bearer"


def _host_of(origin: str) -> str:
    """The host and port of an Origin header; "" for null and other nonsense."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _refusal(status: int, field: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    content = {"error": {"field": field, "message": message}}
    # the body was not read: what follows on this connection would be its rest
    return JSONResponse(content, status, headers={**HEADERS, "Connection": "close", **(headers or {})})
