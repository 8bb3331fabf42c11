"""Thousands of label or result files as one table: `kitti_format` for whole folders, with the official program's leniency.

The official evaluator reads files as one stream of words. What that drops or skips without a word is kept here as a list,
so that the evaluation can report it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.data.formats import kitti_format as fmt
from monolift.errors import InputError
from monolift.files.text import plain_text

_CHUNK = 1 << 16
_MARKS = re.compile(rb"\xef\xbb\xbf|\xfe\xff|\xff\xfe")  # byte order marks: of UTF-8 anywhere, of UTF-16


@dataclass(frozen=True, eq=False)
class KittiTable:
    """The rows of many files under one another, in file order; row i stands in `paths[image[i]]`, line `line[i]`."""

    paths: tuple[str, ...]
    labels: fmt.KittiLabels
    image: npt.NDArray[np.int64]
    line: npt.NDArray[np.int64]
    unscored: tuple[str, ...] = ()
    """`file:line` of result rows without a score, left out as the official program leaves them out."""
    surplus: tuple[str, ...] = ()
    """`file:line` of rows with more fields than belong there; the surplus is not read."""

    def where(self, row: int) -> str:
        """`label_2/000123.txt:4` of one row."""
        return f"{fmt.short_name(self.paths[self.image[row]])}:{self.line[row]}"


def read_table(paths: Sequence[str | os.PathLike[str]], scored: bool) -> KittiTable:
    """Read label files or, with `scored`, result files. A path "" stands for a file without rows.

    Beyond what `kitti_format.parse_labels` accepts, surplus numbers at the end of a line and result rows that lack their
    score are tolerated and listed. Raises InputError, naming file, line and field, for everything else.
    """
    names = tuple(os.fspath(p) for p in paths)
    want = fmt.N_RESULT if scored else fmt.N_LABEL
    flat: list[bytes] = []  # one list for all fields: a list per row would keep the garbage collector busy
    image: list[int] = []
    line: list[int] = []
    unscored: list[str] = []
    surplus: list[str] = []
    underscores = 0
    for i, path in enumerate(names):
        data = _read(path) if path else b""
        underscores += data.count(b"_")
        for number, text in enumerate(data.splitlines(), 1):
            words = text.split()
            if len(words) != want:
                if words:
                    where = f"{fmt.short_name(path)}:{number}"
                    words = _trim(words, want, where, unscored, surplus)
                if not words:
                    continue
            flat += words
            image.append(i)
            line.append(number)
    numbers = _numbers(flat, want, underscores)
    if numbers is None:  # row by row, to name the culprit
        for k, (i, number) in enumerate(zip(image, line, strict=True)):
            fmt.check_row(flat[k * want : (k + 1) * want], f"{fmt.short_name(names[i])}:{number}")
        numbers = _convert(flat, want)
    text_of = {word: word.decode("utf-8") for word in set(flat[::want])}
    labels = fmt.from_numbers([text_of[word] for word in flat[::want]], numbers)
    at = np.array([image, line], dtype=np.int64)
    return KittiTable(names, labels, at[0], at[1], tuple(unscored), tuple(surplus))


def _trim(words: list[bytes], want: int, where: str, unscored: list[str], surplus: list[str]) -> list[bytes]:
    """A row of another length as the official program takes it: shortened, or empty if it is left out."""
    if len(words) == fmt.N_LABEL and want == fmt.N_RESULT:
        fmt.check_row(words, where)
        unscored.append(where)
        return []
    if len(words) < want:
        fmt.check_row(words, where)
    for word in words[want:]:
        try:
            float(word)
        except ValueError:  # as when two lines have run together
            got = word[:40].decode("utf-8", "replace")
            raise InputError(
                f"{where}: expected {want} fields, got {len(words)}, and {got!r} among the surplus is no number"
            ) from None
    if len(words) > fmt.N_RESULT or want == fmt.N_RESULT:
        surplus.append(where)
    return words[:want]


def _numbers(flat: list[bytes], want: int, underscores: int) -> npt.NDArray[np.float64] | None:
    """(N, want - 1) numbers, converted all at once; None where something may be wrong with some row."""
    types = Counter(flat[::want])
    try:
        for word in types:
            word.decode("utf-8")
        numbers = _convert(flat, want)
    except ValueError:  # UnicodeDecodeError is one too
        return None
    sound = bool(np.isfinite(numbers).all())
    # Python reads 1_000 as a number, no other reader does: underscores belong into class names only
    sound &= underscores == sum(n * word.count(b"_") for word, n in types.items())
    if want == fmt.N_LABEL:
        sound &= all(map(fmt.is_integer, set(flat[2::want])))
    else:
        sound &= not bool((np.abs(numbers[:, 1]) >= fmt.MAX_OCCLUSION).any())
    return numbers if sound else None


def _convert(flat: list[bytes], want: int) -> npt.NDArray[np.float64]:
    words = flat.copy()
    del words[::want]
    return np.fromiter(map(float, words), np.float64, len(words)).reshape(-1, want - 1)


def _read(path: str) -> bytes:
    """The text of a file without byte order marks; three system calls, because an evaluation opens thousands of small files."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            data = chunk = os.read(handle, _CHUNK)
            while len(chunk) == _CHUNK:
                chunk = os.read(handle, _CHUNK)
                data += chunk
        finally:
            os.close(handle)
        return plain_text(data, fmt.short_name(Path(path))) if b"\0" in data or _MARKS.search(data) else data
    except OSError as error:
        raise InputError(f"{fmt.short_name(Path(path))}: cannot read: {error.strerror}") from None
