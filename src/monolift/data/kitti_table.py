"""Thousands of label or result files as one table: `kitti_format` for whole folders, with the official program's leniency.

The official evaluator reads files as one stream of words. What that drops or skips without a word is kept here as a list,
so that whoever evaluates can say it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monolift.data import kitti_format as fmt
from monolift.errors import InputError

_CHUNK = 1 << 16


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
    flat: list[
        bytes
    ] = []  # all fields of all rows: one list, not one per row, keeps the garbage collector out
    image: list[int] = []
    line: list[int] = []
    unscored: list[str] = []
    surplus: list[str] = []
    for i, path in enumerate(names):
        for number, text in enumerate(_read(path).splitlines(), 1) if path else ():
            words = text.split()
            if len(words) != want:
                if not words:
                    continue
                where = f"{fmt.short_name(path)}:{number}"
                words = _trim(words, want, where, unscored, surplus)
                if not words:
                    continue
            flat += words
            image.append(i)
            line.append(number)
    types, numbers = _columns(flat, want, names, image, line)
    labels = fmt.from_numbers(types, numbers)
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


def _columns(
    flat: list[bytes], want: int, paths: Sequence[str], image: Sequence[int], line: Sequence[int]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Class names and (N, want - 1) numbers, converted all at once; where that fails, row by row to name the culprit."""
    names, words = flat[::want], flat.copy()
    del words[::want]
    try:
        text = {name: name.decode("utf-8") for name in set(names)}
        numbers = np.fromiter(map(float, words), np.float64, len(words)).reshape(len(names), want - 1)
        if not np.isfinite(numbers).all() or b"_" in b"".join(words):
            raise ValueError
        if want == fmt.N_LABEL and not all(map(fmt.is_integer, set(words[1 :: want - 1]))):
            raise ValueError
        if want == fmt.N_RESULT and (np.abs(numbers[:, 1]) >= 1e9).any():
            raise ValueError
    except ValueError:  # UnicodeDecodeError is one too
        for k, (i, number) in enumerate(zip(image, line, strict=True)):
            row, name = flat[k * want : (k + 1) * want], fmt.short_name(paths[i])
            fmt.split_rows(b"\n" * (number - 1) + b" ".join(row), name)
            fmt.check_row(row, f"{name}:{number}")
        raise
    return [text[name] for name in names], numbers


def _read(path: str) -> bytes:
    """The bytes of a file; three system calls, because an evaluation opens thousands of small files."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            data = chunk = os.read(handle, _CHUNK)
            while len(chunk) == _CHUNK:
                chunk = os.read(handle, _CHUNK)
                data += chunk
        finally:
            os.close(handle)
        return data
    except OSError as error:
        raise InputError(f"{fmt.short_name(Path(path))}: cannot read: {error.strerror}") from None
