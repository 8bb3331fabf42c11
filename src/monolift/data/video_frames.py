"""Single frames of a video, in any order: the reader behind a slider."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch

from monolift.data.sources import upright_pixels
from monolift.errors import InputError, MissingExtraError
from monolift.files.images import planes
from monolift.typing import Tensor, UInt8

AHEAD = 3.0  # seconds: a frame so near is decoded up to, one further away is sought
SAME = 2e-3  # seconds: results state times with four decimals


class VideoFrames:
    """The frames of one video by their time. Steps forward decode one frame; others seek. Safe between threads.

    Args:
        path: of the video.

    Raises:
        MissingExtraError: without PyAV.
        InputError: for a file that is no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            import av
        except ImportError:
            raise MissingExtraError(f"{path}: reading a video", "video") from None
        self._fault = av.error.FFmpegError
        try:
            self._container: Any = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path}: not a readable video ({error})") from None
        if not self._container.streams.video:
            raise InputError(f"{path}: no images in this file, only sound")
        self._stream: Any = self._container.streams.video[0]
        self._decoded: Any = None
        self._frame: Any = None  # the last one decoded

    def at(self, time: float) -> UInt8[Tensor, "3 H W"]:
        """The frame of a time, seconds.

        Raises:
            InputError: for a time beyond the end, or a damaged file.
        """
        with self._lock:
            try:
                frame = self._found(time)
            except (self._fault, OSError) as error:
                raise InputError(f"{self.path}: no frame at {time:g} s can be read ({error})") from None
        return torch.from_numpy(planes(upright_pixels(frame)))

    def _found(self, time: float) -> Any:
        now = None if self._frame is None else self._frame.time
        if now is not None and abs(now - time) <= SAME:
            return self._frame
        if now is None or not now < time < now + AHEAD:
            self._container.seek(int(max(time - SAME, 0) / self._stream.time_base), stream=self._stream)
            self._decoded = self._container.decode(self._stream)
        for frame in self._decoded:
            if frame.time is not None and frame.time >= time - SAME:
                self._frame = frame
                return frame
        self._frame = None
        raise InputError(f"{self.path}: ends before {time:g} s")
