"""Small text files: read whole, split into rows, written atomically; every fault is an InputError that says where."""

from __future__ import annotations

import math
import os
from pathlib import Path

from monolift.errors import InputError


def short_name(path: str | os.PathLike[str]) -> str:
    """`label_2/000123.txt`: the last two parts of a path, how messages name a file."""
    return "/".join(Path(path).parts[-2:])


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises InputError when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{short_name(path)}: cannot read: {reason}") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a neighbour file and rename it: nobody ever sees half a file. Raises InputError when it cannot."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot write: {error.strerror or error}") from None


def split_rows(text: str | bytes) -> list[tuple[int, list[bytes]]]:
    """(line number, fields) of every line that is not blank."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    split = [(i, line.split()) for i, line in enumerate(data.splitlines(), 1)]
    return [(i, words) for i, words in split if words]


def number(word: bytes, where: str) -> float:
    """The finite number a field holds. Raises InputError, beginning with `where`, for anything else."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or b"_" in word:  # Python reads 1_000 as a number, no other reader does
        raise InputError(f"{where}: expected a finite number, got {show(word)}")
    return value


def text_of(word: bytes, where: str) -> str:
    """A field as text. Raises InputError, beginning with `where`, unless it is UTF-8."""
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where}: expected UTF-8 text, got bytes {word[:16]!r}") from None


def show(word: bytes) -> str:
    """A field for a message, cut if it is long."""
    return repr(word[:40].decode("utf-8", "replace"))
