"""JSON: read with bounds, written for people too, and typed access in which a wrong value is one named error.

A JSON file comes from anywhere: `read_json` bounds its size, its depth and the digits of its numbers. The functions below it
take a field's value together with ``where``, the words that an error begins with ("instances.json: images[3]: width").

    content = read_json(path)
    for k, row in enumerate(table(content, "images", path)):
        where = f"{path}: images[{k}]"
        width = integer_of(value(row, "width", where), f"{where}: width", least=1)
        cut = optional(row, "truncation", number_of, where)  # None where the field is absent or null
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from monolift.errors import InputError
from monolift.files.folders import write_atomically
from monolift.files.text import MOST_BYTES, decode, read_bytes

MOST_DEPTH = 64
"""Lists and objects within one another. (COCO, Omni3D, nuScenes and glTF need 8; Python's own limit is a RecursionError.)"""
MOST_DIGITS = 300
"""Digits of one number: more do not fit a double, and quadratic conversion would cost seconds."""

_NUMBERS = re.compile(r"\[\s*(-?[0-9][-+0-9.eE]*(?:,\s*-?[0-9][-+0-9.eE]*)*)\s*\]")
_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(f"{_STRING}|{_NUMBERS.pattern}")
_LONG = re.compile(rf"(?<![0-9])[0-9]{{{MOST_DIGITS + 1}}}")
_STRINGS = re.compile(_STRING, re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")

T = TypeVar("T")


def read_json(path: str | os.PathLike[str], most: int = MOST_BYTES) -> Any:
    """The content of a JSON file. Raises InputError where it is missing, malformed, or beyond the bounds of `parse_json`."""
    return parse_json(read_bytes(path, most), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The content of JSON text; a byte order mark is dropped.

    Raises:
        InputError: beginning with ``where``, for anything else than JSON in UTF-8, and for text that is nested deeper than
            `MOST_DEPTH` or holds a number of more than `MOST_DIGITS` digits.
    """
    plain = decode(text, where) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    if _deeper(plain, MOST_DEPTH) and _deeper(_STRINGS.sub('""', plain), MOST_DEPTH):
        raise InputError(
            f"{where}: not usable JSON: lists and objects stand more than {MOST_DEPTH} deep in one another"
        )
    if _LONG.search(plain) and _LONG.search(_STRINGS.sub('""', plain)):
        raise InputError(f"{where}: not usable JSON: a number has more than {MOST_DIGITS} digits")
    try:
        return json.loads(plain)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None


def _deeper(text: str, depth: int) -> bool:
    """Whether brackets stand deeper than ``depth``, by taking away innermost pairs: at the speed of str.replace."""
    if text.count("[") + text.count("{") <= depth:
        return False
    brackets = _NOT_BRACKETS.sub("", text)
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace("[]", "").replace("{}", "")
    return bool(brackets)


# --- typed access


def show_value(given: Any) -> str:
    """A value for a message, cut if it is long, whatever it is."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = 60
    shown.maxlevel = 3
    return shown.repr(given) if not isinstance(given, int) or abs(given) < 1e30 else "a number beyond 1e30"


def object_of(content: Any, where: str | os.PathLike[str]) -> dict[str, Any]:
    """The content, which has to be an object of named fields."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected an object of named fields, got {show_value(content)}")
    return content


def table(content: Any, key: str, where: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The list of objects under ``key``."""
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        raise InputError(f"{where}: expected {key}, a list of objects, got {show_value(found)}")
    for k, row in enumerate(found):
        if not isinstance(row, dict):
            raise InputError(f"{where}: {key}[{k}]: expected an object, got {show_value(row)}")
    return found


def value(row: Any, key: str, where: str) -> Any:
    """The value of a field that has to be there."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object with the key {key!r}, got {show_value(row)}")
    if key not in row:
        keys = [str(k)[:40] for k in row]
        got = ", ".join(keys[:12]) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")
        raise InputError(f"{where}: expected the key {key!r}, got {got or 'nothing'}")
    return row[key]


def optional(
    row: Mapping[str, Any], key: str, read: Callable[[Any, str], T], where: str, default: T | None = None
) -> T | None:
    """The value of a field that may be absent: ``read(value, "where: key")``; ``default`` where it is absent or null."""
    given = row.get(key)
    return default if given is None else read(given, f"{where}: {key}")


def number_of(given: Any, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number, no text and no bool, from ``least`` to ``most``."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            found = float(given)
        except OverflowError:
            found = math.inf
        if math.isfinite(found) and least <= found <= most:
            return found
    raise InputError(f"{where}: expected a finite number{_bounds(least, most)}, got {show_value(given)}")


def numbers(given: Any, count: int | None, where: str) -> list[float]:
    """``count`` finite numbers (None: any count), of a list or a single number."""
    listed = given if isinstance(given, list) else [given]
    try:
        found = [number_of(v, where) for v in listed]
    except InputError:
        found = None
    if found is None or (count is not None and len(found) != count):
        wanted = "finite numbers" if count is None else f"{count} finite number{'s' * (count != 1)}"
        raise InputError(f"{where}: expected {wanted}, got {show_value(given)}")
    return found


def integer_of(given: Any, where: str, least: float = -math.inf, most: float = math.inf) -> int:
    """A whole number, also written as 3.0, from ``least`` to ``most``."""
    if isinstance(given, int | float) and not isinstance(given, bool) and least <= given <= most:
        if isinstance(given, int):
            return given
        if math.isfinite(given) and given == int(given):
            return int(given)
    raise InputError(f"{where}: expected a whole number{_bounds(least, most)}, got {show_value(given)}")


def text_value(given: Any, where: str) -> str:
    """Text that is not empty."""
    if not isinstance(given, str) or not given:
        raise InputError(f"{where}: expected text, got {show_value(given)}")
    return given


def flag_of(given: Any, where: str) -> bool:
    """true or false, also as 1 or 0."""
    if not isinstance(given, bool | int | float) or given not in (0, 1):
        raise InputError(f"{where}: expected true or false, got {show_value(given)}")
    return bool(given)


def identifier(given: Any, where: str) -> int | str:
    """An id that can be looked up: a whole number or text."""
    if isinstance(given, str) and given:
        return given
    try:
        return integer_of(given, where)
    except InputError:
        raise InputError(
            f"{where}: expected an id (a whole number or text), got {show_value(given)}"
        ) from None


def list_of(given: Any, where: str) -> list[Any]:
    """A list."""
    if not isinstance(given, list):
        raise InputError(f"{where}: expected a list, got {show_value(given)}")
    return given


def _bounds(least: float, most: float) -> str:
    if least == -math.inf and most == math.inf:
        return ""
    if most == math.inf:
        return f" of at least {least:g}"
    return f" of at most {most:g}" if least == -math.inf else f" from {least:g} to {most:g}"


# --- writing


def write_json(path: str | os.PathLike[str], content: Any, compact: bool = False) -> None:
    """Writes `format_json` of the content, or one line where ``compact``, complete or not at all; makes the folder."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False) if compact else format_json(content)
    write_atomically(path, (text + "\n").encode("utf-8", "surrogatepass"), parents=True)


def format_json(content: Any) -> str:
    """``content`` as JSON text without a last newline. Raises ValueError for NaN and infinity, which JSON does not have."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return _TOKEN.sub(_one_line, text)


def _one_line(match: re.Match[str]) -> str:
    if match[0].startswith('"'):  # brackets within a text are left alone
        return match[0]
    return "[" + ", ".join(match[1].replace(",", " ").split()) + "]"
