"""Annotated videos of results: H.264 in an MP4 file, frame by frame, in constant memory (PyAV, extra ``video``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monolift.errors import InputError, MissingExtraError
from monolift.files.folders import partial_file

if TYPE_CHECKING:
    from PIL import Image

CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this build of FFmpeg has
LONGEST_SIDE = 1920  # pixels: wider drawings are reduced, players and H.264 levels end there
TICK = Fraction(1, 90_000)  # seconds: the unit of times in a video
FPS = 10.0  # of videos whose frame rate is unknown


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Return a video's frames per second; 10 where the file does not state them.

    Raises:
        MissingExtraError: without PyAV.
        InputError: for a file that is no video.
    """
    av = _pyav(f"{path}: reading a video")
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate if container.streams.video else None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({error})") from None
    return float(rate) if rate else FPS


class VideoWriter:
    """Frames appended to a video; see `open_video`."""

    def __init__(self, container: Any, codec: str, fps: float) -> None:
        self._container, self._codec = container, codec
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream: Any = None
        self._size = (0, 0)
        self._last = -1  # the time of the last frame, ticks
        self.frames = 0

    def add(self, image: Image.Image, time: float | None = None) -> None:
        """Append a frame. The first one decides the video's size, even and at most 1920 pixels; others are fitted to it.

        Args:
            time: seconds since the first frame, where frames do not come at the video's rate; later than the last.
        """
        import av

        if self._stream is None:
            scale = min(1.0, LONGEST_SIDE / max(image.size))
            self._size = (
                max(2, int(image.width * scale) // 2 * 2),
                max(2, int(image.height * scale) // 2 * 2),
            )
            self._stream = self._container.add_stream(self._codec, rate=self._rate)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt, self._stream.time_base = "yuv420p", TICK
            self._stream.codec_context.time_base = TICK
            if self._codec == "libx264":
                self._stream.options = {"crf": "20", "preset": "veryfast"}
            else:
                self._stream.bit_rate = 8_000_000
        if image.size != self._size:
            image = image.resize(self._size)
        frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGB")), format="rgb24")
        frame.time_base = TICK
        steps = self.frames / self._rate if time is None else time
        self._last = max(round(steps / TICK), self._last + 1)
        frame.pts = self._last
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)


@contextmanager
def open_video(path: str | os.PathLike[str], fps: float) -> Iterator[VideoWriter]:
    """A `VideoWriter`; the file appears under its name when the block ends without an error.

    Args:
        path: ends in .mp4; its folder is made.
        fps: frames per second.

    Raises:
        MissingExtraError: without PyAV.
        InputError: for another suffix, a frame rate that is not positive, no frame, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"{path}: expected a name that ends in .mp4")
    if not 0 < fps <= 1000:
        raise InputError(f"{path}: expected 0 to 1000 frames per second, got {fps:g}")
    av = _pyav(f"{path}: writing a video")
    codec = next((name for name in CODECS if name in av.codecs_available), None)
    if codec is None:
        raise InputError(f"{path}: this PyAV has none of the codecs {', '.join(CODECS)}")
    with partial_file(path, parents=True) as partial:
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                writer = VideoWriter(container, codec, fps)
                yield writer
                if not writer.frames:
                    raise InputError(f"{path}: no frames to write")
                writer.finish()
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: cannot write this video ({error})") from None


def _pyav(what: str) -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError(what, "video") from None
    return av
