"""What a stranger can cost the service: connections, heads that never end, names, tokens, memory; each refusal is counted."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_detector import FakeDetector
from monolift.errors import InputError
from monolift.inference.model import Model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
import uvicorn
from starlette.testclient import TestClient

from monolift.serve import ConnectionLimits, Hosts, Limits, create_app, protocol
from monolift.serve.room import Room

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def body(width: int = 160, height: int = 96, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (40, 40, 40)).save(data, kind)
    return data.getvalue()


@contextmanager
def served(app: Any, limits: ConnectionLimits) -> Iterator[tuple[str, int]]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    config = uvicorn.Config(
        app,
        http=protocol(limits, app.state.metrics.refuse),
        ws="none",
        timeout_keep_alive=1,
        log_level="critical",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(20)


def app_of(**options: Any) -> Any:
    return create_app(Model(FakeDetector(), "fake"), Limits(bytes=300_000, pixels=500_000), **options)


def refused(app: Any, reason: str) -> float:
    return app.state.metrics.registry.get_sample_value("monolift_refused_total", {"reason": reason}) or 0.0


def until_closed(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """What still comes; fails where the server keeps the connection open."""
    connection.settimeout(seconds)
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionError:
        pass
    return said


def test_heads_that_never_end_are_closed_and_counted() -> None:
    app = app_of()
    with served(app, ConnectionLimits(head_seconds=0.4, rest_seconds=0.4)) as address:
        silent = socket.create_connection(address)
        half = socket.create_connection(address)
        half.sendall(b"POST /v1/detect HTTP/1.1\r\nX: ")
        for _ in range(3):  # a byte now and then gains no time
            time.sleep(0.1)
            half.sendall(b"x")
        rest = socket.create_connection(address)  # refused at once, and then goes on sending
        rest.sendall(
            b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\nContent-Length: 9999\r\n\r\nx"
        )
        assert b" 415 " in rest.recv(4096)
        assert b" 408 " in until_closed(half) and b" 408 " in until_closed(silent)
        rest.sendall(b"x")
        until_closed(rest)
        assert refused(app, "head_time") >= 2 and refused(app, "type") == 1
        idle = socket.create_connection(address)
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert until_closed(idle).startswith(b"HTTP/1.1 200")  # kept for the next request, but not for ever


def test_connections_have_an_end_and_slow_ones_give_way() -> None:
    app = app_of()
    with served(app, ConnectionLimits(most=3, head_seconds=30, grace_seconds=0.3)) as address:
        held = [socket.create_connection(address) for _ in range(3)]
        time.sleep(0.1)
        beyond = socket.create_connection(address)
        assert b" 503 " in until_closed(beyond)
        time.sleep(0.4)  # now the first three have had their time
        late = socket.create_connection(address)
        late.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert until_closed(late).startswith(b"HTTP/1.1 200")
        assert refused(app, "connections") == 2
        for connection in held:
            connection.close()


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    app = app_of()
    app.add_api_route("/large", lambda: "x" * 30_000_000)
    with served(app, ConnectionLimits(stalled_seconds=0.3)) as address:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        end = time.monotonic() + 10
        while not refused(app, "stalled"):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(until_closed(connection)) < 30_000_000


@pytest.mark.parametrize(
    ("listening", "more", "host", "allowed"),
    [
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "127.0.0.1", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "LOCALHOST.", True),
        ("127.0.0.1", (), "evil.example", False),
        ("127.0.0.1", (), "localhost.evil.example", False),
        ("127.0.0.1", (), "127.0.0.1.evil.example", False),
        ("127.0.0.1", (), "user@localhost@evil.example", False),
        ("127.0.0.1", (), "192.168.1.5", False),
        ("127.0.0.1", (), "", False),
        ("127.0.0.1", (), "[::1", False),
        ("127.0.0.1", ("cars.example",), "cars.example:443", True),
        ("127.0.0.1", ("Cars.example.:8000",), "cars.example:443", True),
        ("127.0.0.1", ("[fd00::7]:8000",), "[fd00::7]", True),
        ("127.0.0.1", ("fd00::7",), "[fd00::7]:8000", True),
        ("127.0.0.1", ("*",), "evil.example", True),
        ("0.0.0.0", (), "192.168.1.5:8000", True),
        ("0.0.0.0", (), socket.gethostname(), True),
        ("0.0.0.0", (), "evil.example", False),
        ("10.0.0.7", (), "10.0.0.7", True),
    ],
)
def test_host_names(listening: str, more: tuple[str, ...], host: str, allowed: bool) -> None:
    assert Hosts(listening, more).allows(host) is allowed


@pytest.mark.parametrize("name", ["http://cars.example", "cars.example/detect", " "])
def test_an_allowed_host_is_a_name(name: str) -> None:
    with pytest.raises(InputError, match="allowed host: expected a name"):
        Hosts(more=(name,))


def test_foreign_names_and_pages_are_refused_before_anything_is_read() -> None:
    app = app_of(hosts=Hosts())
    with TestClient(app, base_url="http://localhost") as client:
        assert client.post("/v1/detect", files={"image": body()}).status_code == 200
        own = client.post("/v1/detect", files={"image": body()}, headers={"Origin": "http://localhost:8000"})
        assert own.status_code == 200
        for origin in ("http://evil.example", "null", "http://["):
            foreign = client.post("/v1/detect", files={"image": body()}, headers={"Origin": origin})
            assert (foreign.status_code, foreign.json()["error"]["field"]) == (403, "origin")
        for path in ("/", "/v1/model", "/metrics", "/docs", "/v1/detect"):
            answer = client.get(path, headers={"Host": "evil.example"})
            assert (answer.status_code, answer.json()["error"]["field"]) == (403, "host")
        assert client.get("/health/live", headers={"Host": "evil.example"}).text == "ok"
    assert (refused(app, "host"), refused(app, "origin")) == (5, 3)


def test_with_a_token_only_health_and_the_page_are_open() -> None:
    app = app_of(token="séc ret")
    with TestClient(app) as client:
        for given in (
            "",
            "Bearer",
            "Bearer wrong",
            "Basic séc ret",
            "séc ret",
            "Bearer séc ret, Bearer séc ret",
        ):
            headers = {"Authorization": given.encode()}
            for method, path in (
                ("GET", "/v1/model"),
                ("GET", "/metrics"),
                ("GET", "/docs"),
                ("POST", "/v1/detect"),
            ):
                answer = client.request(method, path, headers=headers)  # type: ignore[arg-type]
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": "Bearer séc ret".encode()}
        assert client.post("/v1/detect", files={"image": body()}, headers=right).status_code == 200  # type: ignore[arg-type]
        assert client.get("/health/ready").status_code == 200 and client.get("/").status_code == 200
    assert refused(app, "token") == 24


def test_bytes_and_pixels_have_a_bound_for_all_requests_together() -> None:
    limits = Limits(bytes=300_000, pixels=500_000, held_bytes=1, held_pixels=1)
    app = create_app(Model(FakeDetector(), "fake"), limits)
    works = app.state.works
    assert (works.bytes.size, works._pixels.size) == (600_000, 500_000)  # one request always fits
    with TestClient(app) as client:
        data = body()
        assert client.post("/v1/detect", files={"image": data}).status_code == 200
        assert works.bytes.left == 600_000 and works._pixels.left == 500_000 and works.orders == 0
        works.bytes.take(599_999)
        answer = client.post("/v1/detect", content=data, headers={"Content-Type": "image/png"})
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert works.bytes.left == 1 and refused(app, "memory") == 1
        works.bytes.free(599_999)
        for broken in (data[:60], b"x", body(1000, 600)):
            assert client.post("/v1/detect", files={"image": broken}).status_code in (413, 422)
        chunks = (data[k : k + 50] for k in range(0, len(data), 50))  # without a stated length
        assert client.post("/v1/detect", content=chunks).status_code == 200
        assert client.post("/v1/detect", files={"image": data}).status_code == 200
        assert works.bytes.left == 600_000 and works._pixels.left == 500_000
    assert refused(app, "image") == 2 and refused(app, "pixels") == 1


def test_a_turn_that_does_not_come_is_503() -> None:
    app = create_app(Model(FakeDetector(), "fake"), Limits(seconds=0.4, held_pixels=1))
    with TestClient(app) as client:
        works = app.state.works
        works._pixels.take(works._pixels.size)  # another image is being decoded
        answer = client.post("/v1/detect", files={"image": body()})
        assert (answer.status_code, refused(app, "queue")) == (503, 1)
        works._pixels.free(works._pixels.size)
        assert works.orders == 0


def test_room_is_given_in_order_and_comes_back_from_who_leaves() -> None:
    async def story() -> list[str]:
        room, seen = Room(10), []
        assert room.take(6) and not room.take(5)

        async def come(name: str, amount: int) -> None:
            await room.wait(amount)
            seen.append(name)

        large, small = asyncio.ensure_future(come("large", 99)), asyncio.ensure_future(come("small", 2))
        await asyncio.sleep(0)
        assert not room.take(1)  # nobody overtakes
        large.cancel()
        await asyncio.sleep(0.01)
        room.free(6)
        await asyncio.gather(small, large, return_exceptions=True)
        assert room.left == 8
        return seen

    assert asyncio.run(story()) == ["small"]


def test_malformed_requests_are_answered_4xx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of benchmarks/malformed.py; afterwards a sound request is served."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("malformed", BENCHMARKS / "malformed.py")
    assert spec is not None and spec.loader is not None
    malformed = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "malformed", malformed)
    spec.loader.exec_module(malformed)
    app = app_of()
    with served(app, ConnectionLimits(head_seconds=2)) as address:
        for request in malformed.requests(0, 150):
            status = malformed.send(*address, request)
            assert status is None or status == 200 or 400 <= status < 500, (
                request.what,
                request.content[:300],
                status,
            )
            assert request.what != "content" or status in range(400, 500)
        with TestClient(app) as client:
            assert client.post("/v1/detect", files={"image": body()}).status_code == 200


def test_the_pixels_of_a_webp_are_known_before_it_is_opened() -> None:
    from monolift.errors import InputError
    from monolift.files.images import image_size

    for options in ({"lossless": True}, {}, {"exif": Image.Exif().tobytes() + bytes(20)}):
        data = io.BytesIO()
        Image.fromarray(np.zeros((40, 70, 3), np.uint8)).save(data, "WEBP", **options)
        assert image_size(data.getvalue()) == (70, 40)
    huge = bytearray(b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\0\xff\xff\0") + bytes(40)
    with pytest.raises(InputError, match="65536 x 65536"):
        image_size(bytes(huge))
