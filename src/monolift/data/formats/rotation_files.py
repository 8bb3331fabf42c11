"""Rotations of labelled boxes that lean: rotation_2/ID.txt beside label_2/ID.txt, which holds a yaw alone.

One line per line of the label file, nine numbers: the box's rotation cam_from_object, row by row, as Omni3D's R_cam; the axes
are x along the length, y down along the height, z along the width. The folder and the layout are this project's own: KITTI has
no such files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.errors import InputError
from monolift.files.text import read_text, short_name

FloatArray = npt.NDArray[np.float64]
FOLDER = "rotation_2"
ROUNDED = 1e-2
"""How far R R^T may be from 1: files are rounded."""


def format_rotations(rotation: FloatArray) -> str:
    """The text of a file. rotation: (N, 3, 3), by row of the labels."""
    return "".join(" ".join(f"{v:.7g}" for v in row) + "\n" for row in rotation.reshape(-1, 9).tolist())


def read_rotations(path: Path, rows: int) -> FloatArray:
    """(N, 3, 3) cam_from_object of the ``rows`` lines of a label file.

    Raises:
        InputError: naming the line that is no rotation, or where there are more or fewer lines.
    """
    where = short_name(path)
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != rows:
        raise InputError(f"{where}: expected {rows} lines, as many as in the label file, got {len(lines)}")
    found = np.zeros((rows, 3, 3))
    for k, line in enumerate(lines):
        try:
            numbers = np.array([float(word) for word in line.split()])
        except ValueError:
            numbers = np.zeros(0)
        if numbers.shape != (9,) or not np.isfinite(numbers).all():
            raise InputError(f"{where}, line {k + 1}: expected nine numbers, got {line[:60]!r}")
        matrix = numbers.reshape(3, 3)
        if np.abs(matrix @ matrix.T - np.eye(3)).max() > ROUNDED or np.linalg.det(matrix) < 0:
            raise InputError(f"{where}, line {k + 1}: expected a rotation, got {line[:60]!r}")
        found[k] = matrix
    return found
