"""``monolift serve``: a model over HTTP, with a page to try it."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from monolift.commands.option import option
from monolift.errors import InputError, MissingExtraError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serve:
    """Serve a model over HTTP, with a page at / to try it.

    monolift serve --model smoke --port 8000
    """

    model: str = "smoke"
    """Bundled model, as listed by `monolift models`, or checkpoint folder."""
    host: str = "127.0.0.1"
    """Address to listen on. The default accepts local requests only."""
    allow_host: Annotated[tuple[str, ...], option("HOST...")] = ()
    """Further host names in requests, besides localhost and the address to listen on; "*" accepts any."""
    token: Annotated[str | None, option("TOKEN")] = None
    """Secret that requests send as "Authorization: Bearer TOKEN". Local users can read the option, not MONOLIFT_TOKEN."""
    port: int = 8000
    """Port; 0 picks a free one."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1 or auto."""
    max_bytes: int = 20_000_000
    """Maximum request size in bytes."""
    max_pixels: int = 25_000_000
    """Maximum image size in pixels."""
    max_seconds: float = 30.0
    """Request timeout in seconds."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """Maximum batch size."""
    waiting: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Maximum queue size (503 when full)."""
    connections: Annotated[int, tyro.conf.arg(metavar="N")] = 256
    """Maximum number of open connections (503 when full)."""
    head_seconds: float = 10.0
    """Timeout of a request's head in seconds; the connection is closed."""
    quiet: bool = False
    """Print no line per request."""


def run(options: Serve) -> int:
    for name, lowest in (
        ("max_bytes", 1),
        ("max_pixels", 1),
        ("max_seconds", 0.001),
        ("batch", 1),
        ("waiting", 1),
        ("connections", 1),
        ("head_seconds", 0.001),
    ):
        if getattr(options, name) < lowest:
            raise InputError(
                f"--{name.replace('_', '-')}: expected {lowest:g} or more, got {getattr(options, name)}"
            )
    if not 0 <= options.port <= 65535:
        raise InputError(f"--port: expected 0 to 65535, got {options.port}")
    try:
        import uvicorn

        from monolift.serve import ConnectionLimits, Hosts, Limits, create_app, protocol
        from monolift.serve.connections import within_descriptors
    except ImportError as error:
        if error.name and error.name.split(".")[0] in (
            "fastapi",
            "uvicorn",
            "prometheus_client",
            "starlette",
        ):
            raise MissingExtraError("monolift serve", "serve") from None
        raise
    from monolift.inference.model import load

    model = load(options.model, options.device)
    limits = Limits(options.max_bytes, options.max_pixels, options.max_seconds)
    token = options.token if options.token is not None else os.environ.get("MONOLIFT_TOKEN") or None
    app = create_app(
        model,
        limits,
        largest_batch=options.batch,
        depth=options.waiting,
        hosts=Hosts(options.host, options.allow_host),
        token=token,
    )
    calm = within_descriptors(ConnectionLimits(options.connections, options.head_seconds))
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        http=protocol(calm, app.state.metrics.refuse),
        ws="none",
        timeout_keep_alive=round(calm.idle_seconds),
        log_level="warning" if options.quiet else "info",
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    listening = _bind(options)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"{model.name} on http://{shown}:{port} ({_reach(options.host, token)})\n")
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _reach(host: str, token: str | None) -> str:
    """Who can use it, in one clause."""
    if host in LOOPBACK:
        opens = "" if token else ", without authentication unless --token is given"
        return f"this machine only; --host 0.0.0.0 opens it to the network{opens}"
    if token:
        return "open to everyone who reaches this address and has the token"
    return "open to everyone who reaches this address: there is no authentication without --token"


def _bind(options: Serve) -> socket.socket:
    """The listening socket, so that a taken port is one line and port 0 is known before the first request."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(128)  # whoever reads our line may connect at once
    except OSError as error:
        listening.close()
        raise InputError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror or error}"
        ) from None
    return listening
