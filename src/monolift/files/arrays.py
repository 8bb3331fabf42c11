"""NumPy's files (.npy, .npz): headers are held against what the file can hold before memory is taken, nothing is unpickled.

A header is text that anyone can write: one of 100,000 x 100,000 numbers stands in 200 bytes and asks for 75 GB.
"""

from __future__ import annotations

import io
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.errors import InputError
from monolift.files.text import reason_of

MOST_BYTES = 1 << 30
"""Of one unpacked array."""

# what NumPy and zipfile raise for files that are damaged or made to break them
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
)


def read_npy(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """The array of a .npy file.

    Raises:
        InputError: for a file that is missing, damaged, larger than `MOST_BYTES`, or of Python objects.
    """
    try:
        with open(path, "rb") as file:
            return _array(file, os.fstat(file.fileno()).st_size)
    except _UNREADABLE as error:
        raise _fault(path, ".npy", error) from None


def read_npz(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a .npz file by name. Raises InputError as `read_npy`."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            room = MOST_BYTES
            for entry in archive.infolist():
                if not entry.filename.endswith(".npy"):
                    continue
                if entry.file_size > room:
                    raise InputError(f"{path}: expected at most {MOST_BYTES:,} bytes of arrays, got more")
                room -= entry.file_size
                with archive.open(entry) as file:
                    data = file.read(entry.file_size + 1)
                found[entry.filename.removesuffix(".npy")] = _array(io.BytesIO(data), len(data))
            return found
    except _UNREADABLE as error:
        raise _fault(path, ".npz", error) from None


def _array(file: Any, size: int) -> npt.NDArray[Any]:
    """Reads an array whose header asks for no more than the ``size`` bytes of its file."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, kind = read_header(file)
    count = 1
    for side in shape:
        count *= int(side)
    if kind.hasobject:
        raise ValueError("Python objects are not read")
    if count * kind.itemsize > min(size, MOST_BYTES):
        raise ValueError(f"the header asks for {count * kind.itemsize:,} bytes, the file has {size:,}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _fault(path: str | os.PathLike[str], kind: str, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    return InputError(f"{Path(path)}: not a readable {kind} file ({reason_of(error)[:200]})")
