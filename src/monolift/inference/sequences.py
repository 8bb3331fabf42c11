"""Successive frames: which results belong to one sequence, and when each was taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from monolift.data.sources import is_video
from monolift.errors import InputError
from monolift.inference.results import Results3D


def sequence_of(result: Results3D) -> Path:
    """What a result is a frame of: its video, or the folder of its image."""
    path = result.path or Path("frames") / result.name
    return path if is_video(path) else path.parent


def frame_order(path: Path) -> tuple[str, tuple[tuple[int, str], ...]]:
    """A sort key: folders in order of name, within one by the numbers in the names (frame2 before frame10)."""
    parts = re.findall(r"\d+|\D+", path.name)
    return str(path.parent), tuple((int(p), "") if p.isdecimal() else (-1, p) for p in parts)


def timed(results: Iterable[Results3D], fps: float) -> Iterator[Results3D]:
    """The results, each with a frame number and a time in seconds that grow through its sequence.

    Frames of a video have theirs. Images of a folder are ``fps`` of them a second; those named by a number have that
    number, so that a gap in the numbers is one in time.

    Raises:
        InputError: for a frame rate that is not positive.
    """
    if not fps > 0:
        raise InputError(f"fps: expected more than 0, got {fps:g}")
    here: Path | None = None
    first = frame = 0
    last = 0.0
    for result in results:
        begins = sequence_of(result) != here
        here = sequence_of(result)
        stem = "" if result.path is None else result.path.stem
        if result.frame is not None:
            frame = result.frame
        elif stem.isdecimal() and (begins or int(stem) > frame):
            frame = int(stem)
        else:
            frame = 0 if begins else frame + 1
        first = frame if begins else first
        time = (frame - first) / fps if result.time is None else result.time
        if not begins and time <= last:  # damaged videos repeat a time
            time = last + 1 / fps
        last = time
        yield replace(result, time=time, frame=frame)
