# ruff: noqa: E501  (tables of hostile values)
"""Malformed requests to the service, seeded: every one has to be answered 4xx, and the service has to serve on.

python benchmarks/malformed.py --requests 5000 [--seed 0] [--url http://127.0.0.1:8000]

Without --url it starts ``monolift serve`` itself. It prints the answers by status, and the requests that were answered 5xx or not
at all; it exits with 1 where there are such. Half of the requests are sound HTTP with broken content, half are broken HTTP.
"""

from __future__ import annotations

import argparse
import collections
import io
import random
import socket
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, urlsplit

import numpy as np
from PIL import Image

WORDS = (
    "", "nan", "inf", "-1", "0", "1e400", "1e38", "9" * 400, "\x00", "é", "\ud800", "[" * 500, "{}", "null", "true", "a=b&c", "../../etc",
    "1,2,3", "700,700,320,96,0,0", "700,700,320,96,1e9,1", "1,1,1,1,inf,inf", "-700,700,320,96", "1e38,1e38,160,48", "P2: 1", "P2: " + "1e38 " * 12,
    '{"fx": 1e999}', "%YAML:1.0\n---\n" + "[" * 300, "camera_matrix: &a [*a]", "!!python/object:os.system", "json", "png", "Car,Car", "Horse",
)  # fmt: skip
OPTIONS = ("camera", "fov", "calib", "score", "classes", "format", "name", "image", "x" * 200, "é")
TYPES = (
    "image/png", "image/jpeg", "image/", "multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary=",
    "multipart/form-data; boundary=" + "b" * 300, "application/json", "application/octet-stream", "text/html", "", "\xff", "image/png; a=b",
)  # fmt: skip
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


@dataclass(frozen=True)
class Broken:
    """A request as bytes, and whether it could be answered at all."""

    content: bytes
    what: str


def sound_images(rng: random.Random, width: int = 96, height: int = 64) -> list[bytes]:
    """One small image of each format."""
    pixels = np.frombuffer(rng.randbytes(3 * width * height), np.uint8).reshape(height, width, 3)
    found = []
    for kind in KINDS:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, kind)
        found.append(data.getvalue())
    return found


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Bytes cut, changed, doubled, or with a number at its limit."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not content:
            break
        place = rng.randrange(min(len(content), rng.choice((16, 64, 4096, 1 << 30))))
        match rng.randrange(6):
            case 0:
                del content[place:]
            case 1:
                content[place] = rng.randrange(256)
            case 2:
                content[place : place + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80")
                )
            case 3:
                content[place:place] = content[place : place + rng.randrange(1, 64)]
            case 4:
                del content[place : place + rng.randrange(1, 64)]
            case 5:
                content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def content_request(rng: random.Random, images: list[bytes]) -> Broken:
    """Sound HTTP whose image or options cannot be used; at least the options cannot."""
    body = mutated(rng, rng.choice(images))
    options = [(rng.choice(OPTIONS), rng.choice(WORDS)) for _ in range(rng.choice((1, 1, 2, 5)))]
    options.append(("score", rng.choice(("-1", "nan", "2", "x", "1e400"))))  # one of them is always wrong
    kind = rng.choice(TYPES)
    query = ""
    if rng.random() < 0.5 and "multipart" not in kind:
        query = "&".join(f"{_quoted(k)}={_quoted(v)}" for k, v in options)
    else:
        kind = "multipart/form-data; boundary=x" if rng.random() < 0.8 else kind
        fields = [
            f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode("utf-8", "replace")
            for k, v in options
        ]
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        body = b"".join([*fields, head, body, b"\r\n--x--\r\n"])
        if rng.random() < 0.3:
            body = mutated(rng, body[:2000]) + body[2000:]
    head_lines = f"POST /v1/detect?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return Broken((head_lines + length).encode("latin-1", "replace") + body, "content")


def http_request(rng: random.Random, images: list[bytes]) -> Broken:
    """Broken HTTP: a head with bytes changed, other methods and paths, lying lengths, chunks that are none."""
    sound = content_request(rng, images).content
    head, _, body = sound.partition(b"\r\n\r\n")
    match rng.randrange(6):
        case 0:
            return Broken(mutated(rng, head) + b"\r\n\r\n" + body, "head")
        case 1:
            word = rng.choice((b"GET", b"PUT", b"DELETE", b"OPTIONS", b"\0", b"PO ST", b"POST" * 100))
            return Broken(head.replace(b"POST", word, 1) + b"\r\n\r\n" + body, "method")
        case 2:
            lie = rng.choice((b"-1", b"1e9", b"9" * 30, b"5, 6", b"0x10", b"", b"99999999999"))
            return Broken(
                head.replace(b"Content-Length: ", b"Content-Length: " + lie + b"\r\nX-Was: ", 1)
                + b"\r\n\r\n"
                + body,
                "length",
            )
        case 3:
            chunked = head.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX-Was: ", 1)
            size = rng.choice((b"zz", b"-5", b"ffffffffffffffff", b"5", b""))
            return Broken(chunked + b"\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n", "chunks")
        case 4:
            path = rng.choice(
                (
                    b"/v1/detect/../..",
                    b"/%00",
                    b"//",
                    b"/v1/detect" + b"a" * 5000,
                    b"/v1/x?" + b"%" * 50,
                    b"http://[",
                    b"*",
                )
            )
            return Broken(
                b"POST "
                + path
                + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "path",
            )
        case _:
            more = rng.choice(
                (
                    b"Host: evil.example", b"Authorization: Bearer \xff", b"Upgrade: websocket\r\nConnection: upgrade", b"Origin: http://[",
                    b"Expect: 100-continue", b"A: " + b"b" * 20_000, b"Transfer-Encoding: gzip", b"X" * 70_000, b"Content-Type: \xff\xfe",
                )
            )  # fmt: skip
            return Broken(head + b"\r\n" + more + b"\r\n\r\n" + body, "header")


def requests(seed: int, count: int) -> list[Broken]:
    """``count`` malformed requests, the same for the same seed."""
    rng = random.Random(seed)
    images = sound_images(rng)
    return [(content_request if rng.random() < 0.5 else http_request)(rng, images) for _ in range(count)]


def send(host: str, port: int, request: Broken, timeout: float = 30.0) -> int | None:
    """The status of the answer; None where the connection was closed without one."""
    with socket.create_connection((host, port), timeout) as connection:
        try:
            connection.sendall(request.content)
            if (
                request.what != "content"
            ):  # what has no end would wait for its time limit; a whole request is answered
                connection.shutdown(socket.SHUT_WR)
        except OSError:  # refused before all was sent: the answer may be there
            pass
        answer = b""
        try:
            while b"\r\n" not in answer:
                piece = connection.recv(4096)
                if not piece:
                    break
                answer += piece
        except ConnectionError:
            pass
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 2 and words[1].isdigit() else None


def _quoted(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "replace"), safe="")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url")
    options = parser.parse_args()
    from load import Server

    server = None if options.url else Server("--max-seconds", "10", "--head-seconds", "5")
    address = urlsplit(options.url or server.url)  # type: ignore[union-attr]
    said: collections.Counter[int | None] = collections.Counter()
    bad = []
    for number, request in enumerate(requests(options.seed, options.requests)):
        status = send(address.hostname or "", address.port or 80, request)
        said[status] += 1
        if (
            status is not None
            and not 400 <= status < 500
            and not (status == 200 and request.what != "content")
        ):
            bad.append((number, request.what, status))
    print(
        f"{options.requests} requests, seed {options.seed}: {dict(sorted(said.items(), key=str))} (None: closed without an answer)"
    )
    for number, what, status in bad[:20]:
        print(f"request {number} ({what}): {status}")
    if server is not None:
        print(f"peak {server.peak_mb():.0f} MB")
        server.stop()
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
