"""The viewer's server: the page, one frame at a time, and reviews. It listens on this machine only."""

from __future__ import annotations

import json
import re
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.viewer.encode import encode_scene
from monolift.viewer.open import Frames
from monolift.viewer.page import served_page
from monolift.viewer.review import check_target, earlier_review, parse_decisions, save_review

LOOPBACK = "127.0.0.1"
LARGEST_BODY = 1 << 20  # bytes of a review; a thousand objects need a tenth
KEPT_FRAMES = 16
_FRAME = re.compile(r"/api/frames/([0-9]{1,9})\Z")
_REVIEW = re.compile(r"/api/frames/([0-9]{1,9})/review\Z")


class ViewerServer(ThreadingHTTPServer):
    """Serves ``frames``; with ``save_to`` the page can review them and what is accepted is written there.

    port 0 takes any that is free. Raises InputError for a port that is taken and for a ``save_to`` that would overwrite the
    input.
    """

    daemon_threads = True

    def __init__(self, frames: Frames, title: str, port: int = 0, save_to: Path | None = None) -> None:
        if save_to is not None:
            check_target(save_to, frames.inputs)
        self.frames, self.title, self.save_to = frames, title, save_to
        self.writing = threading.Lock()
        self.encoded = lru_cache(KEPT_FRAMES)(self._encoded)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: cannot listen there ({error}); 0 takes any free port") from None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser on this machine calls us. Another name in Host is a foreign site that points here."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def _encoded(self, index: int) -> dict[str, Any]:
        return encode_scene(self.frames[index])

    def frame(self, index: int) -> dict[str, Any]:
        frame = self.encoded(index)
        if self.save_to is None:
            return frame
        return {**frame, "review": earlier_review(self.save_to, self.frames[index])}


class _RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    server_version = "monolift"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a line per frame."""

    def _answer(self, action: Any) -> None:
        try:
            if self.headers.get("Host") not in self.server.hosts:
                raise _RefusedError(403, "this server answers its own machine only")
            kind, content = action()
            status = 200
        except _RefusedError as refusal:
            status, kind, content = refusal.status, "application/json", _json({"error": str(refusal)})
        except InputError as error:
            status, kind, content = 422, "application/json", _json({"error": str(error)})
        except OSError as error:
            text = f"{error.filename or 'system'}: {error.strerror or error}"
            status, kind, content = 500, "application/json", _json({"error": text})
        self._send(status, kind, content)

    def _send(self, status: int, kind: str, content: bytes) -> None:
        if status >= 400:
            self.close_connection = True  # a body that was refused may still be on its way
        try:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader went on to another frame

    def _get(self) -> tuple[str, bytes]:
        path = self.path.partition("?")[0]
        if path == "/":
            frames, review = self.server.frames, self.server.save_to is not None
            page = served_page(frames.names, self.server.title, review, frames.times)
            return "text/html", page.encode()
        if match := _FRAME.match(path):
            return "application/json", _json(self.server.frame(self._index(match[1])))
        raise _RefusedError(404, "no such page")

    def _post(self) -> tuple[str, bytes]:
        match = _REVIEW.match(self.path)
        if not match:
            raise _RefusedError(404, "no such page")
        if self.server.save_to is None:
            raise _RefusedError(403, "nothing is saved here: start with --save-to DIR")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise _RefusedError(403, "reviews come from this server's own page only")
        # A foreign page cannot send this type without asking first, and is never told yes.
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(415, "expected application/json")
        index = self._index(match[1])
        body = self._body()
        scene = self.server.frames[index]
        decisions = parse_decisions(body, len(scene.objects))
        with self.server.writing:
            file, written = save_review(self.server.save_to, scene, decisions)
        return "application/json", _json({"file": str(file), "written": written})

    def _index(self, digits: str) -> int:
        if int(digits) >= len(self.server.frames):
            raise _RefusedError(404, f"no frame {digits}: there are {len(self.server.frames)}")
        return int(digits)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise _RefusedError(411, "expected a Content-Length")
        if int(length) > LARGEST_BODY:
            raise _RefusedError(413, f"expected at most {LARGEST_BODY} bytes")
        return self.rfile.read(int(length))


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
