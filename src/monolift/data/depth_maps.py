"""Maps of a number per pixel as PNG files: depth as KITTI stores it, object numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from monolift.errors import InputError
from monolift.typing import Float, Int, Tensor

DEPTH_SCALE = 256.0  # KITTI's: file value per metre


def read_depth(path: str | Path) -> Float[Tensor, "H W"]:
    """z in metres of a 16-bit PNG that holds metres times 256; 0 where unknown. Raises InputError for any other file."""
    return read_numbers(path, sixteen_bit=True).float() / DEPTH_SCALE


def read_numbers(path: str | Path, sixteen_bit: bool = False) -> Int[Tensor, "H W"]:
    """The values of a picture with one whole number per pixel (8 bit, palette indices or 16 bit).

    Raises InputError for any other file, and with ``sixteen_bit`` for one of 8 bits.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            array = np.array(picture)
    except FileNotFoundError:
        raise InputError(f"{path}: no such map") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a readable picture ({error})") from None
    if array.ndim != 2 or array.dtype.kind not in "iu" or (sixteen_bit and array.dtype.itemsize == 1):
        wanted = "one 16-bit number" if sixteen_bit else "one 8- or 16-bit number"
        raise InputError(f"{path}: expected {wanted} per pixel, got a picture of mode {mode}")
    return torch.from_numpy(array.astype(np.int64))
