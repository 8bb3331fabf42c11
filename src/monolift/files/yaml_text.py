"""YAML: the plain part of it (mappings, lists, scalars), read with bounds.

Settings and camera files need no aliases (a "bomb" of 300 bytes unfolds to gigabytes), no tags (they make objects), no dates.
So content is built from PyYAML's events here, with the scalars of YAML 1.2's core schema: 1e3 is a number, 0o17 is 15,
``yes`` and ``2001-13-13`` are text. Typed access is that of `monolift.files.json_text`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import Any

from monolift.errors import InputError, MissingExtraError
from monolift.files.text import decode, read_bytes

MOST_BYTES = 4 << 20
MOST_DEPTH = 32
MOST_ITEMS = 200_000
"""Scalars of a document. PyYAML reads about 50,000 a second."""
MOST_DIGITS = 300

INERT_TAGS = ("tag:yaml.org,2002:opencv-matrix",)
"""Tags that are ignored: OpenCV writes one at each matrix, whose fields are plain YAML."""

_NULL = ("", "~", "null", "Null", "NULL")
_FLAGS = {
    name: flag
    for flag, word in ((True, "true"), (False, "false"))
    for name in (word, word.title(), word.upper())
}
_WHOLE = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL, _HEXADECIMAL = re.compile(r"0o[0-7]+\Z"), re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_ENDLESS = re.compile(r"(?:([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_NESTED = re.compile(rf"(?:[\[{{]\s*){{{MOST_DEPTH + 1}}}")
_OPENCV_HEAD = re.compile(r"\A%YAML:[0-9.]+[ \t]*\n")  # not a directive of YAML, which wants a space


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The first document of a YAML file that is not empty; None where there is none.

    Raises InputError for files that are missing, malformed or beyond the bounds, MissingExtraError without PyYAML.
    """
    return parse_yaml(read_bytes(path, MOST_BYTES), str(path))


def parse_yaml(text: str | bytes, where: str) -> Any:
    """As `read_yaml` for the text of a file. Keys are text as written. Errors begin with ``where``."""
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(f"{where}: reading YAML", "ros") from None
    plain = decode(text, where) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    plain = _OPENCV_HEAD.sub("", plain)
    if _NESTED.search(plain):
        raise InputError(f"{where}: not usable YAML: lists stand more than {MOST_DEPTH} deep in one another")
    try:
        return _first_document(yaml.parse(plain, Loader=yaml.SafeLoader), where)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not YAML ({' '.join(str(error).split())[:200]})") from None


def _first_document(events: Iterator[Any], where: str) -> Any:
    """The content of the first document that holds anything."""
    from yaml import events as kinds

    root: list[Any] = []
    open_ones: list[Any] = [root]  # lists and mappings being filled, outermost first
    keys: list[str | None] = [None]  # of each open mapping: the key whose value comes next
    items = 0
    for event in events:
        line = f"{where}:{event.start_mark.line + 1}"
        if isinstance(event, kinds.DocumentEndEvent):
            if root and root[0] is not None:
                return root[0]
            root.clear()
        elif isinstance(event, kinds.AliasEvent):
            raise InputError(
                f"{line}: an alias (*{event.anchor}): write the value itself, aliases are not read"
            )
        elif isinstance(event, kinds.MappingEndEvent | kinds.SequenceEndEvent):
            open_ones.pop()
            keys.pop()
        elif isinstance(event, kinds.NodeEvent):
            items += 1
            if items > MOST_ITEMS or len(open_ones) > MOST_DEPTH:
                raise InputError(
                    f"{line}: not usable YAML: expected at most {MOST_ITEMS:,} values, at most {MOST_DEPTH} deep in one another"
                )
            _refuse_tag(event, line)
            parent = open_ones[-1]
            if isinstance(parent, dict) and keys[-1] is None:
                keys[-1] = _key(event, parent, line)
                continue
            if isinstance(event, kinds.ScalarEvent):
                content: Any = event.value if event.style else _scalar(event.value, line)
            else:
                content = {} if isinstance(event, kinds.MappingStartEvent) else []
            if isinstance(parent, dict):
                parent[keys[-1]] = content
                keys[-1] = None
            else:
                parent.append(content)
            if not isinstance(event, kinds.ScalarEvent):
                open_ones.append(content)
                keys.append(None)
    return None


def _refuse_tag(event: Any, line: str) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None and tag not in INERT_TAGS and tag != "!":
        raise InputError(f"{line}: a tag ({tag[:60]}): write the plain value, tags are not read")


def _key(event: Any, parent: dict[str, Any], line: str) -> str:
    key = getattr(event, "value", None)
    if not isinstance(key, str):
        raise InputError(f"{line}: expected text as a key, got a list or mapping")
    if key in parent:
        raise InputError(f"{line}: {key[:60]} comes a second time")
    return key


def _scalar(word: str, line: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: null, flag, whole number, number, or else text."""
    if word in _NULL:
        return None
    if word in _FLAGS:
        return _FLAGS[word]
    if _FLOAT.match(word) or _HEXADECIMAL.match(word) or _OCTAL.match(word):
        if len(word) > MOST_DIGITS:
            raise InputError(f"{line}: a number has more than {MOST_DIGITS} digits")
        if _WHOLE.match(word):
            return int(word)
        return int(word, 0) if word[:2] in ("0o", "0x") else float(word)
    if found := _ENDLESS.match(word):
        return math.nan if found[1] is None else float(f"{found[1]}inf")
    return word
