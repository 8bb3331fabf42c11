"""Live sources: cameras of this machine and network streams, read like a video that has no end."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from monolift.errors import InputError

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
PATIENCE = 10.0  # seconds without an answer after which a stream counts as lost
_URL = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?:[^/@]*@)?(.+)", re.IGNORECASE)
_CAMERA = re.compile(r"(?:camera:)?(\d{1,3})")


@dataclass(frozen=True)
class LiveSource:
    """A camera or a network stream.

    Attributes:
        address: what FFmpeg opens; it may hold a password.
        name: what is shown and written: without user and password.
        format: FFmpeg's input device; None for a network stream.
    """

    address: str
    name: str
    format: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def stem(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "_", self.name).strip("_.") or "stream"

    @property
    def options(self) -> dict[str, str]:
        """FFmpeg's options."""
        return {"rtsp_transport": "tcp"} if self.address.lower().startswith("rtsp") else {}


def live_source(source: str | os.PathLike[str] | LiveSource) -> LiveSource | None:
    """The live source that a text names: a camera's number (0, camera:0), a device (/dev/video0) or a URL (rtsp://...).

    A file of that name takes precedence. Returns None for anything else.

    Raises:
        InputError: for a camera's number on a system whose cameras have names only (Windows).
    """
    if isinstance(source, LiveSource):
        return source
    text = str(source)
    if match := _URL.fullmatch(text):
        scheme, rest = match[1].lower(), match[2]
        address = text if "://" in text else text.replace(":/", "://", 1)  # a Path joins the two slashes
        return LiveSource(address, Path(f"{scheme}:/{rest.partition('?')[0]}").as_posix())
    if (match := _CAMERA.fullmatch(text)) and not Path(text).exists():
        return _camera(int(match[1]))
    if text.startswith("/dev/video"):
        return LiveSource(text, text, "v4l2")
    return None


def _camera(number: int) -> LiveSource:
    name = f"camera:{number}"
    if sys.platform == "darwin":
        return LiveSource(str(number), name, "avfoundation")
    if sys.platform == "win32":
        raise InputError(
            f"camera {number}: cameras of Windows have names, not numbers: stream it, for example with "
            "ffmpeg -f dshow, and give the address"
        )
    return LiveSource(f"/dev/video{number}", name, "v4l2")
