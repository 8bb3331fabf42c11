"""The checkpoints that ship with the package, and how a name or path finds one. Needs no torch."""

from __future__ import annotations

import difflib
from pathlib import Path

from monolift.errors import InputError
from monolift.inference.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from monolift.inference.released import WEIGHT_SUFFIXES

ZOO = Path(__file__).parents[1] / "zoo"
EXAMPLE = ZOO / "example"
"""A rendered image with its calibration and its true objects, in KITTI's formats."""


def names() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{CONFIG_FILE}"))


def resolve(name_or_path: str | Path) -> Path:
    """The checkpoint folder of a bundled model's name, or of a path; a weight file of another program stays as it is.

    Raises InputError with the nearest name.
    """
    path = Path(name_or_path)
    if str(name_or_path) in names():
        return ZOO / str(name_or_path)
    if path.is_dir():
        return path
    if path.name == CONFIG_FILE and path.is_file():
        return path.parent
    if path.suffix in WEIGHT_SUFFIXES and path.is_file():
        return path.parent if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file() else path
    near = difflib.get_close_matches(str(name_or_path), names(), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"no model {str(name_or_path)!r}: expected {' or '.join(names()) or 'a name of the zoo'}, a checkpoint folder "
        f"with {CONFIG_FILE}, or the file of another program's checkpoint ({', '.join(WEIGHT_SUFFIXES)}){hint}"
    )
