"""Settings: values from text, JSON, TOML or YAML as fields of frozen dataclasses, typed by the fields' annotations.

One reader for ``--set KEY=VALUE``, ``--config FILE``, the configuration of a checkpoint and what Python passes: a value of the
wrong type, length or range is one `InputError` that names the field, what was expected and what came.

    CHOICES = {"fit": ("area", "letterbox")}
    RANGES = {"epochs": COUNT, "lr": POSITIVE, "mirror": SHARE}

    def __post_init__(self) -> None:
        check_fields("smoke", self, CHOICES, RANGES)
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from monolift.errors import InputError

LONGEST = 10_000  # characters of a value on the command line
Fields = TypeVar("Fields")  # a frozen dataclass


# -- what a field may hold --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; of a tuple, every element.

    above, below: whether ``low`` and ``high`` themselves are excluded; multiple: of which integer, 1 for any.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    multiple: int = 1

    def problem(self, value: Any) -> str | None:
        """What is wrong, as in "must be at least 1"; None for a value that is fine."""
        if isinstance(value, tuple):
            return next((found for found in map(self.problem, value) if found), None)
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        right = low and high and (self.multiple == 1 or value % self.multiple == 0)
        return None if right else f"must be {self}"

    def __str__(self) -> str:
        several = f"a multiple of {self.multiple}, " if self.multiple > 1 else ""
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        high = f"{'below' if self.below else 'at most'} {self.high:g}"
        ends = [text for text, end in ((low, self.low), (high, self.high)) if math.isfinite(end)]
        return several + " and ".join(ends)


@dataclass(frozen=True)
class Names:
    """At least one name, none empty, none twice."""

    def problem(self, value: Any) -> str | None:
        """What is wrong; None for names that are fine."""
        if not value:
            return "must hold at least one name"
        if not all(name.strip() for name in value):
            return "must not hold an empty name"
        twice = sorted({name for name in value if value.count(name) > 1})
        return f"must not name {twice[0]} twice" if twice else None


Limit = Range | Names
COUNT = Range(1, 1_000_000)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
SHARE = Range(0, 1)
SEED = Range(0, 2**63 - 1)
SIDE = Range(32, 8192, multiple=32)
"""Pixels of a network image's side."""
CHANNELS = Range(1, 65_536)
NAMES = Names()


def check_fields(
    owner: str,
    config: object,
    choices: Mapping[str, Sequence[str]] | None = None,
    limits: Mapping[str, Limit] | None = None,
) -> None:
    """Check a frozen dataclass in its ``__post_init__``: types by annotation, then choices and limits.

    Lists become tuples. owner: whose fields, for the message. Raises InputError for the first field that does not fit.
    """
    for name, kind in hints(type(config)).items():
        given = getattr(config, name)
        value = convert(kind, given, f"{owner} {name}".lstrip())
        if isinstance(given, list | tuple):
            object.__setattr__(config, name, value)
    for name, allowed in (choices or {}).items():
        if getattr(config, name) not in allowed:
            wanted = ", ".join(allowed)
            raise InputError(
                f"{owner} {name} must be one of {wanted}, got {show(getattr(config, name))}".lstrip()
            )
    for name, limit in (limits or {}).items():
        problem = limit.problem(getattr(config, name))
        if problem:
            raise InputError(f"{owner} {name} {problem}, got {show(getattr(config, name))}".lstrip())


_HINTS: dict[type, dict[str, Any]] = {}


def hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, resolved."""
    if kind not in _HINTS:
        _HINTS[kind] = _resolved(kind)
    return _HINTS[kind]


def _resolved(kind: type) -> dict[str, Any]:
    found = get_type_hints(kind)
    return {f.name: found[f.name] for f in dataclasses.fields(kind)}


# -- one value --------------------------------------------------------------------------------------------------------


def parse(text: str) -> Any:
    """What a value on the command line holds: JSON, a Python tuple or list, or else plain text."""
    if len(text) > LONGEST:
        raise InputError(f"expected at most {LONGEST} characters, got {len(text)}: {show(text)}")
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        pass
    if text[:1] in ("(", "["):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            pass
    return text


def _wrong(kind: Any, value: Any, where: str, example: Any, reason: str = "") -> InputError:
    like = "" if example is None else f" like {show(example)}"
    return InputError(f"{where}: expected {describe(kind)}{like}, got {show(value)}{reason}")


def convert(kind: Any, value: Any, where: str, example: Any = None, text: bool = False) -> Any:
    """``value`` as the annotation ``kind``. Raises InputError, beginning with ``where``, for anything that is not one.

    Args:
        text: the value was typed: 0 and 1 may stand for false and true, 1e3 for 1000, and a,b for a list.
    """
    wrong = partial(_wrong, kind, value, where, example)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return changed(example if example is not None else kind(), value, where + ".", text)
        first = dataclasses.fields(kind)[0].name
        raise InputError(
            f"{where}: expected its fields, as in {where.split()[-1]}.{first}, got {show(value)}"
        )
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if type(None) in arguments and (value is None or (text and value in ("", "none"))):
            return None
        if not text and any(
            isinstance(one, type) and type(value) is not bool and isinstance(value, one) for one in arguments
        ):
            return value
        inner = next(one for one in arguments if one is not type(None))
        return convert(inner, value, where, example, text)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {show(value)}")
    if origin is tuple:
        return _tuple(arguments, value, where, wrong, text)
    if kind is bool:
        if text and value in (0, 1, "True", "False"):
            return value in (1, "True")
        if isinstance(value, bool):
            return value
        raise wrong()
    if kind is str:
        if isinstance(value, str):
            return value
        raise wrong()
    if kind in (int, float):
        return _number(kind, value, wrong, text)
    return value


def _number(kind: type, value: Any, wrong: Any, text: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong()
    if kind is int:
        if isinstance(value, float) and not (text and value.is_integer()):
            raise wrong()
        if abs(value) >= 2**63:
            raise wrong(": too large")
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        raise wrong(": too large") from None
    if not math.isfinite(number):
        raise wrong(": not finite")
    return number


def _tuple(arguments: tuple[Any, ...], value: Any, where: str, wrong: Any, text: bool) -> tuple[Any, ...]:
    if text and isinstance(value, str):
        inner = arguments[0]
        value = [
            one.strip() if inner is str else parse(one.strip()) for one in value.split(",") if one.strip()
        ]
    if not isinstance(value, list | tuple):
        raise wrong()
    if arguments[-1:] == (Ellipsis,):
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        raise wrong()
    return tuple(convert(kind, one, where, None, text) for kind, one in zip(arguments, value, strict=True))


def describe(kind: Any) -> str:
    """An annotation in words, for help and messages: "int", "list of 2 numbers"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join("none" if one is type(None) else describe(one) for one in arguments)
    if origin is tuple:
        plain = {str: "names", float: "numbers", int: "whole numbers"}
        inner = plain.get(arguments[0]) or f"({describe(arguments[0]).removeprefix('list of ')})"
        return f"list of {inner}" if arguments[-1] is Ellipsis else f"list of {len(arguments)} {inner}"
    if kind is str:
        return "text"
    return getattr(kind, "__name__", str(kind))


def show(value: Any) -> str:
    """A value for a message, cut if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:60] + f"... ({len(text)} characters)"


# -- many fields ------------------------------------------------------------------------------------------------------


def changed(target: Fields, changes: Mapping[Any, Any], where: str = "", text: bool = False) -> Fields:
    """``target`` with the fields that ``changes`` names, each typed by its annotation; nested mappings go one deeper.

    A field whose metadata names others it ``decides`` empties those that are not given, so that a shorter list of classes
    does not keep the old list of sizes. where: what comes before a field's name in messages.
    """
    kinds = hints(type(target))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in kinds:
            raise InputError(f"{where}{key}: {type(target).__name__} has no {key}{_nearest(key, kinds)}")
        values[key] = convert(kinds[key], value, f"{where}{key}", getattr(target, key), text)
    for field in dataclasses.fields(target):  # type: ignore[arg-type]
        if field.name in values and values[field.name] != getattr(target, field.name):
            values |= {name: () for name in field.metadata.get("decides", ()) if name not in values}
    return dataclasses.replace(target, **values)  # type: ignore[type-var]


def _nearest(key: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(key), list(names), 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(names))}"


def split_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``["epochs=20", "augmentation.mirror=0"]`` as nested names and values; of a name given twice the last counts."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        names = key.strip().split(".")
        if not separator or not all(names):
            raise InputError(f"setting {show(setting)}: expected key=value")
        level = found
        for name in names[:-1]:
            level = level.setdefault(name, {})
            if not isinstance(level, dict):
                raise InputError(f"setting {key!r}: {name} is given as a whole, too")
        level[names[-1]] = _Typed(text)
    return found


class _Typed(str):
    """Text that was typed on a command line and is yet to be parsed."""


def _parsed(kind: Any, value: Any, key: str) -> Any:
    """Typed text as what it holds for a field of this kind."""
    if isinstance(value, dict):
        if not dataclasses.is_dataclass(kind):
            raise InputError(f"setting {key + '.' + next(iter(value))!r}: {key} has no fields")
        inner = hints(kind)  # type: ignore[arg-type]
        return {name: _parsed(inner.get(name), one, f"{key}.{name}") for name, one in value.items()}
    content = parse(str(value))
    if kind is str:
        return content if isinstance(content, str) else str(value)
    return content


def apply_settings(
    targets: Sequence[Any], settings: Sequence[str] | Mapping[Any, Any], where: str = ""
) -> list[Any]:
    """The dataclasses with ``key=value`` changes, each going to the first that has such a field.

    settings: text of the command line, or the nested values of a file; where: that file, for messages. All changes of one
    dataclass are made at once, so their order does not matter. Raises InputError naming the nearest field for an unknown one.
    """
    text = not isinstance(settings, Mapping)
    wanted = settings if isinstance(settings, Mapping) else split_settings(settings)
    shares: list[dict[str, Any]] = [{} for _ in targets]
    for name, value in wanted.items():
        owner = next((k for k, target in enumerate(targets) if name in hints(type(target))), None)
        if owner is None:
            names = [one for target in targets for one in hints(type(target))]
            raise InputError(f"{where}unknown setting {str(name)!r}{_nearest(name, names)}")
        kind = hints(type(targets[owner]))[name]
        shares[owner][name] = _parsed(kind, value, name) if text else value
    prefix = where or "setting "
    return [
        changed(target, share, prefix, text) if share else target
        for target, share in zip(targets, shares, strict=True)
    ]


def differences(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (value before, value after) of the fields in which two of one dataclass differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(before):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if dataclasses.is_dataclass(one) and not isinstance(one, type):
            found |= {f"{field.name}.{k}": v for k, v in differences(one, other).items()}
        elif one != other:
            found[field.name] = (one, other)
    return found


def as_setting(name: str, value: Any) -> str:
    """``name=value`` as ``--set`` takes it."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
