"""How the camera moves, where that is known: velocities over ground instead of as seen from the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monolift.data.sample import Objects
from monolift.errors import InputError
from monolift.files.folders import listed
from monolift.files.text import read_text

FASTEST = 150.0  # m/s: beyond, a number is not a road vehicle's speed
OXTS_FORWARD, OXTS_TURN, OXTS_FIELDS = 8, 22, 30  # vf in m/s and wu in rad/s of KITTI raw's dataformat.txt


@dataclass(frozen=True)
class CameraMotion:
    """Speed ahead in m/s and rate of turning left in rad/s of each frame; one entry stands for all frames."""

    frames: tuple[tuple[float, float], ...]

    @classmethod
    def read(cls, text: str) -> CameraMotion:
        """From a speed in m/s, a file, or KITTI raw's oxts folder.

        A file has a line per frame: the speed ahead in m/s and, where known, the rate of turning left in rad/s.

        Raises:
            InputError: for anything else, naming the file and the line.
        """
        try:
            return cls(((_checked(float(text), "camera speed"), 0.0),))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
        path = Path(text)
        if path.is_dir():
            folder = path / "data" if (path / "data").is_dir() else path
            files = listed(folder, (".txt",)).files
            if not files:
                raise InputError(f"{folder}: no oxts files (.txt) in this folder")
            return cls(tuple(_oxts(file) for file in files))
        if not path.is_file():
            raise InputError(
                f"camera speed: expected metres per second, a file of one speed per frame, or an oxts folder, got {text!r}"
            )
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        if not lines:
            raise InputError(f"{path}: no line: expected a speed in m/s per frame")
        return cls(tuple(_line(line, f"{path}:{k + 1}") for k, line in enumerate(lines)))

    def at(self, index: int) -> tuple[float, float]:
        """Speed and turning rate of frame ``index``, counted from the first of the sequence.

        Raises:
            InputError: for a frame that the file does not have.
        """
        if len(self.frames) == 1:
            return self.frames[0]
        if not 0 <= index < len(self.frames):
            raise InputError(f"camera speed: {len(self.frames)} frames are given, none for frame {index}")
        return self.frames[index]


def over_ground(objects: Objects, motion: tuple[float, float]) -> Objects:
    """The objects with velocities over ground, camera frame; see `CameraMotion`.

    A point at p that stands still is seen to move with -(v + w x p).
    """
    if objects.velocity is None:
        return objects
    ahead, left = motion
    x, _, z = objects.boxes.center.unbind(-1)
    own = torch.stack([-left * z, torch.zeros_like(x), ahead + left * x], -1)
    return replace(objects, velocity=objects.velocity + own.to(objects.velocity))


def _line(text: str, where: str) -> tuple[float, float]:
    fields = text.replace(",", " ").split()
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise InputError(
            f"{where}: expected a speed in m/s and perhaps a turning rate in rad/s, got {text!r}"
        )
    return _checked(numbers[0], where), _checked(numbers[1] if len(numbers) > 1 else 0.0, where)


def _oxts(path: Path) -> tuple[float, float]:
    fields = read_text(path).split()
    try:
        if len(fields) != OXTS_FIELDS:
            raise ValueError
        return _checked(float(fields[OXTS_FORWARD]), str(path)), _checked(float(fields[OXTS_TURN]), str(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected the {OXTS_FIELDS} numbers of KITTI raw's oxts, got {len(fields)}"
        ) from None


def _checked(value: float, where: str) -> float:
    if not math.isfinite(value) or abs(value) > FASTEST:
        raise InputError(f"{where}: expected metres per second up to {FASTEST:g}, got {value:g}")
    return value
