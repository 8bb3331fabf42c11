"""Small text files: read whole, split into rows; every fault is an InputError that says where.

Text is UTF-8. A byte order mark, which Windows editors write, is dropped; line ends may be LF, CRLF or CR; UTF-16 is refused by
name. A mark that stayed in would make a class "\\ufeffCar" of the first object, which prints like "Car" and equals nothing.
"""

from __future__ import annotations

import codecs
import math
import os
from pathlib import Path

from monolift.errors import InputError

MOST_BYTES = 2 << 30
"""Files above this are not read whole: no input of this package is that large, and /dev/zero has no end."""

_BOM = codecs.BOM_UTF8
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # UTF-32 first: its little-endian mark begins with that of UTF-16


def short_name(path: str | os.PathLike[str]) -> str:
    """`label_2/000123.txt`: the last two parts of a path, how messages name a file."""
    return "/".join(Path(path).parts[-2:])


def reason_of(error: BaseException) -> str:
    """Why an operation failed, in the system's words and without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a file. Raises InputError when it cannot be read or has more than ``most`` bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(min(most + 1, max(os.fstat(file.fileno()).st_size + 1, 1 << 16)))
            if len(data) > 0 and (rest := file.read(most + 1 - len(data))):  # it grew, or is a pipe
                data += rest
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{short_name(path)}: cannot read: {reason_of(error)}") from None
    if len(data) > most:
        raise InputError(f"{short_name(path)}: expected at most {most:,} bytes, got more")
    return data


def plain_text(data: bytes, where: str) -> bytes:
    """UTF-8 text without its byte order marks. Raises InputError, beginning with `where`, for UTF-16, UTF-32 and NUL bytes.

    Marks within the text go too: joined files have one each, and the character (U+FEFF) is invisible wherever it stands.
    """
    if b"\0" in data or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        kind = next((name for mark, name in _WIDE.items() if data.startswith(mark)), "")
        if (
            not kind
            and len(data) > 3
            and (data[1::2].count(0) > len(data) // 4 or data[::2].count(0) > len(data) // 4)
        ):
            kind = "UTF-16"  # without its mark: every second byte of Western text is zero
        what = f"got {kind}" if kind else "got NUL bytes: this is no text file"
        raise InputError(f"{where}: expected UTF-8 text, {what}" + (": save it as UTF-8" if kind else ""))
    return data.replace(_BOM, b"") if _BOM in data else data


def decode(data: bytes, where: str) -> str:
    """Text of UTF-8 bytes, its leading byte order mark dropped, line ends as LF. Raises InputError naming the place."""
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    if b"\0" in data or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        plain_text(data, where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}:{line}: expected UTF-8 text, got bytes {data[error.start : error.start + 16]!r}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file: byte order mark dropped, line ends as LF. Raises InputError for anything else."""
    return decode(read_bytes(path, most), short_name(path))


def split_rows(text: str | bytes, where: str = "text") -> list[tuple[int, list[bytes]]]:
    """(line number, fields) of every line that is not blank; byte order marks are dropped.

    Raises:
        InputError: beginning with ``where``, for UTF-16 and NUL bytes.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    split = [(i, line.split()) for i, line in enumerate(plain_text(data, where).splitlines(), 1)]
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
