"""key=value changes of frozen dataclasses: strict about names, typed by the field's present value."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from typing import Any

from monolift.errors import InputError


def apply_settings(config: Any, recipe: Any, settings: Sequence[str]) -> tuple[Any, Any]:
    """Changes the method's configuration or the recipe, whichever has the field; ``augmentation.mirror=0`` goes one deeper.

    Values are JSON (numbers, true, lists) or plain words. A field whose metadata names others it ``decides`` empties those.
    Raises InputError naming the nearest field for an unknown one.
    """
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"setting {setting!r}: expected key=value")
        names = [f.name for target in (config, recipe) for f in dataclasses.fields(target)]
        head = key.split(".")[0]
        if head not in names:
            near = difflib.get_close_matches(head, names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(names))}"
            raise InputError(f"unknown setting {key!r}{hint}")
        if head in {f.name for f in dataclasses.fields(config)}:
            config = _changed(config, key, text)
        else:
            recipe = _changed(recipe, key, text)
    return config, recipe


def _changed(target: Any, key: str, text: str) -> Any:
    head, _, rest = key.partition(".")
    if head not in {f.name for f in dataclasses.fields(target)}:
        raise InputError(f"unknown setting {key!r}: {type(target).__name__} has no {head}")
    present = getattr(target, head)
    if rest:
        if not dataclasses.is_dataclass(present):
            raise InputError(f"setting {key!r}: {head} has no fields")
        return dataclasses.replace(target, **{head: _changed(present, rest, text)})
    value = _value(present, key, text)
    # what a field decides is worked out anew, or a shorter list of classes would stand beside the old list of sizes
    field = next(f for f in dataclasses.fields(target) if f.name == head)
    decided = field.metadata.get("decides", ()) if value != present else ()
    return dataclasses.replace(target, **{head: value, **dict.fromkeys(decided, ())})


def _value(present: Any, key: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(present, bool):
        if value in (0, 1):
            value = bool(value)
        fits = isinstance(value, bool)
    elif isinstance(present, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(present, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    elif isinstance(present, tuple):
        value = tuple(text.split(",")) if isinstance(value, str) else value
        fits = isinstance(value, list | tuple)
        value = tuple(value) if fits else value
    else:
        value, fits = text, True
    if not fits:
        raise InputError(f"setting {key!r}: expected {type(present).__name__} like {present!r}, got {text!r}")
    return value
