"""Maps of a number per pixel: depth as .npy in metres or as KITTI's 16-bit PNG (metres * 256, 0 unknown), and object numbers.

A number does not say its unit, and a depth map in the wrong one gives boxes that look right and stand a thousand times too far
away. So what is read is held against the road: see `check_units`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monolift.errors import InputError
from monolift.files.arrays import read_npy
from monolift.files.folders import find_file
from monolift.files.images import opened
from monolift.geometry import Camera
from monolift.typing import Float, Int, Tensor

SUFFIXES = (".npy", ".png")
DEPTH_SCALE = 256.0  # KITTI's: file value per metre
FARTHEST_MEDIAN = 400.0
"""Metres: half of a driving image is never farther away than this."""
CAMERA_HEIGHT = (0.3, 4.5)
"""Metres above the road at which a camera is believed, from a toy's to a high lorry's. (KITTI's is at 1.65; its millimetres
read as metres * 256 would put it at 6.4.)"""
_UNITS = {"metres": 1.0, "metres * 256": 1 / 256, "centimetres": 1e-2, "millimetres": 1e-3}
_USUAL_HEIGHT, _USUAL_MEDIAN = (0.8, 3.5), (3.0, 30.0)  # metres; a unit that gives this is the likely one
_FEWEST, _ENOUGH = 50, 20_000  # known pixels from which a unit is judged, and how many are asked

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


def find_depth(folder: str | os.PathLike[str], name: str) -> Path:
    """The depth file of an image, found by its name. Raises InputError where there is none."""
    path = find_file(folder, name, SUFFIXES)
    if path is not None:
        return path
    raise InputError(
        f"{Path(folder) / name}: no depth map: expected {name}.npy (metres) or {name}.png (16 bit, metres * 256)"
    )


def read_depth(path: str | Path) -> Float[Tensor, "H W"]:
    """z in metres of a 16-bit PNG that holds metres times 256, or of a .npy that holds metres; 0 where unknown (also where the
    file holds NaN or infinity). Raises InputError for any other file. `checked_depth` also looks at what the numbers say."""
    return _stored(Path(path)).float() * _unit(path)


def checked_depth(
    path: str | Path, size: tuple[int, int], camera: Camera | None = None, scale: float | None = None
) -> Float[Tensor, "H W"]:
    """`read_depth` for a file of unknown origin that should belong to an image.

    Args:
        size: (width, height) of the image.
        camera: of that image; lets units be recognised better, see `check_units`.
        scale: metres per stored unit. With it the values are taken at their word; without it a .npy holds metres and a PNG
            metres * 256, and this is checked.

    Raises:
        InputError: naming the file: cannot be read, 8-bit or coloured image, another size than the image's, negative
            values, no value at all, and values that are not metres (millimetres, centimetres, disparity).
    """
    values = _stored(Path(path)).float()
    height, width = values.shape
    if (width, height) != size:
        raise InputError(
            f"{path}: the depth map is {width} x {height}, but its image is {size[0]} x {size[1]}: "
            "resize it to the image, nearest neighbour"
        )
    if bool((values < 0).any()):
        raise InputError(f"{path}: expected depths of 0 (unknown) or more, got {float(values.min()):g}")
    if not bool((values > 0).any()):
        raise InputError(f"{path}: the depth map holds no depth: every pixel is 0, NaN or infinite")
    if scale is None:
        depth = values * _unit(path)
        check_units(depth, camera, str(path), _unit(path))
        return depth
    if not scale > 0:
        raise InputError(f"depth scale: expected a positive number of metres per stored unit, got {scale:g}")
    return values * scale


def read_numbers(path: str | Path, sixteen_bit: bool = False) -> Int[Tensor, "H W"]:
    """The values of an image with one whole number per pixel (8 bit, palette indices or 16 bit).

    Raises:
        InputError: for any other file, and with ``sixteen_bit`` for one of 8 bits.
    """
    with opened(path) as image:
        mode = image.mode
        array = np.array(image)
    if array.ndim != 2 or array.dtype.kind not in "iu" or (sixteen_bit and array.dtype.itemsize == 1):
        wanted = "one 16-bit number" if sixteen_bit else "one 8- or 16-bit number"
        raise InputError(f"{path}: expected {wanted} per pixel, got an image of mode {mode}")
    return torch.from_numpy(array.astype(np.int64))


def _unit(path: str | Path) -> float:
    """Metres per stored unit."""
    return 1 / DEPTH_SCALE if Path(path).suffix.lower() == ".png" else 1.0


def _stored(path: Path) -> Tensor:
    """(H, W) numbers of a file as they stand there, NaN and infinity as 0."""
    if path.suffix.lower() == ".png":
        return read_numbers(path, sixteen_bit=True)
    if path.suffix.lower() != ".npy":
        raise InputError(f"{path}: expected a depth map as .npy (metres) or .png (16 bit, metres * 256)")
    values = read_npy(path)
    values = values.squeeze() if values.ndim > 2 else values  # networks like to leave axes of one
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected (H, W) numbers, got {values.dtype} of shape {values.shape}")
    return torch.from_numpy(np.where(np.isfinite(values), values, 0).astype(np.float32))


def check_units(
    depth: Float[Tensor, "H W"], camera: Camera | None = None, name: str = "depth", unit: float = 1.0
) -> None:
    """Raises InputError for a depth map, 0 where unknown, that cannot be metres.

    - Depth falls towards the lower edge of an image taken on a road; where it rises, it is disparity or inverse depth.
    - Half of it beyond 400 m is another unit.
    - With a camera: the road at depth z lies f h / z below the horizon, so the lower rows say how high above the road the
      camera is. A height outside `CAMERA_HEIGHT` is another unit. What stands on the road hides it and lowers the height, so
      70 % of the pixels must lie below it: over 87 laser scans of KITTI that gives 1.46 to 1.89 m.

    ``unit``: metres per stored unit as assumed so far; the message names the unit that would make the camera's height usual.
    Too few pixels, or none below the horizon, say nothing and pass.
    """
    rows, columns = (v.numpy() for v in depth.nonzero(as_tuple=True))
    few = slice(None, None, 1 + len(rows) // _ENOUGH)
    rows, values = rows[few], depth.numpy()[rows[few], columns[few]]
    lower = rows > depth.shape[0] / 2
    if lower.sum() >= _FEWEST and _rank_correlation(rows[lower], values[lower]) > 0.5:
        raise InputError(
            f"{name}: values grow towards the lower edge, where things are near: disparity or inverse depth? "
            "Expected depth in metres: focal length * baseline / disparity"
        )
    height = None if camera is None else _camera_height(rows, values, camera)
    median = float(np.median(values)) if len(values) else 0.0
    if height is not None and not CAMERA_HEIGHT[0] <= height <= CAMERA_HEIGHT[1]:
        fault = f"they put the camera {height:.3g} m above the road"
    elif median > FARTHEST_MEDIAN:
        fault = f"half of them are beyond {median:.4g} m"
    else:
        return
    measure, usual = (median, _USUAL_MEDIAN) if height is None else (height, _USUAL_HEIGHT)
    likely = [n for n, u in _UNITS.items() if usual[0] <= measure / unit * u <= usual[1]]
    advice = (
        f"they look like {likely[0]}: --depth-scale {_UNITS[likely[0]]:.6g}"
        if likely
        else "give --depth-scale"
    )
    raise InputError(f"{name}: these depths are not metres ({fault}); {advice} (metres per stored unit)")


def _camera_height(rows: IntArray, values: FloatArray, camera: Camera) -> float | None:
    """How high above the road the camera would be, metres, from the lowest quarter of what is known; None where that is not
    below the horizon."""
    below = (rows - float(camera.cy)) / float(camera.fy)  # slope of the ray, down positive
    asked = (rows > 0.75 * rows.max(initial=0)) & (below > 0.05)
    if asked.sum() < _FEWEST:
        return None
    return float(np.quantile(values[asked] * below[asked], 0.7))


def _rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Spearman's, with ties in any order: a sign is all that is asked of it. 0 for a constant."""
    if np.ptp(b) == 0:
        return 0.0
    one, two = (np.argsort(np.argsort(v, kind="stable"), kind="stable").astype(np.float64) for v in (a, b))
    return float(np.corrcoef(one, two)[0, 1])


def encode_depth(depth: Float[Tensor, "H W"]) -> npt.NDArray[np.uint16]:
    """Metres as KITTI's 16-bit PNG holds them: * 256, rounded; 0 where unknown or from 256 m on."""
    coded = (depth.double() * DEPTH_SCALE).round().numpy()
    return np.where((coded > 0) & (coded < 65536), coded, 0).astype(np.uint16)
