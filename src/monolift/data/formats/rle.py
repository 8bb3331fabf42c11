"""COCO's run-length encoding of masks: the lengths of the runs of 0, 1, 0, 1 ..., column after column.

The format is pycocotools' (cocoapi, maskApi.c): {"size": [height, width], "counts": ...} with counts either a list of the
lengths (uncompressed) or a text. In the text each number is written in groups of five bits, the lowest first, one character
(48 + group, + 32 while more follow) per group, with the sign in the last group's highest bit; from the fourth number on, the
difference to the number two before stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.errors import InputError
from monolift.files.images import LIMITS
from monolift.files.json_text import show_value

BoolArray = npt.NDArray[np.bool_]
_FIRST, _MORE, _SIGN, _GROUP = 48, 32, 16, 31


def decode_rle(rle: Any, where: str = "mask", expected: tuple[int, int] | None = None) -> BoolArray:
    """(H, W) mask of an encoded one.

    expected: (width, height) of its image, compared before memory is taken. Raises InputError, beginning with `where`, for
    anything that is no mask, or one of another size.
    """
    if not isinstance(rle, Mapping):
        raise InputError(
            f"{where}: expected run lengths as an object of size and counts, got {show_value(rle)}"
        )
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(_is_count(v) and v > 0 for v in size)):
        raise InputError(f"{where}: size: expected [height, width], got {show_value(size)}")
    height, width = size
    if height * width > LIMITS.pixels:
        raise InputError(f"{where}: size: expected at most {LIMITS.pixels:,} pixels, got {width} x {height}")
    if expected is not None and (width, height) != expected:
        raise InputError(
            f"{where}: the masks are {width} x {height}, but the image is {expected[0]} x {expected[1]}"
        )
    if isinstance(counts, str | bytes):
        counts = text_to_counts(counts, where)
    if not (isinstance(counts, list | tuple) and all(_is_count(v) for v in counts)):
        raise InputError(f"{where}: counts: expected run lengths or their text, got {show_value(counts)}")
    if sum(counts) != height * width:
        raise InputError(
            f"{where}: counts: expected runs over {width} x {height} = {height * width} pixels, got {sum(counts)}"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 1 << 40


def encode_rle(mask: BoolArray, compressed: bool = True) -> dict[str, Any]:
    """The inverse of `decode_rle`; `compressed` gives the text."""
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], starts, [mask.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts_to_text(counts) if compressed else counts}


def text_to_counts(text: str | bytes, where: str = "mask") -> list[int]:
    """Run lengths of the compressed form."""
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    counts: list[int] = []
    number = shift = 0
    for byte in data:
        group = byte - _FIRST
        if not 0 <= group < 2 * _MORE:
            raise InputError(f"{where}: counts: {chr(byte)!r} is no character of compressed run lengths")
        number |= (group & _GROUP) << shift
        shift += 5
        if group & _MORE:
            continue
        if group & _SIGN:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError(f"{where}: counts: the text ends in the middle of a number: cut short?")
    return counts


def counts_to_text(counts: Sequence[int]) -> str:
    """The inverse of `text_to_counts`."""
    characters = []
    for k, count in enumerate(counts):
        number = count - counts[k - 2] if k > 2 else count
        while True:
            group = number & _GROUP
            number >>= 5  # keeps the sign
            done = number == (-1 if group & _SIGN else 0)
            characters.append(chr(_FIRST + group + (0 if done else _MORE)))
            if done:
                break
    return "".join(characters)
