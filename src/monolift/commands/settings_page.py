"""``monolift train METHOD --help``: the settings of a method with type, default and meaning."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

from monolift.data import kitti_facts
from monolift.files.described import FieldText, fields_of
from monolift.methods import METHODS, get_method

WIDTH = 80
ROOT = Path(__file__).parents[1]
KINDS = {"str": "text", "tuple[str, ...]": "names", "tuple[float, ...]": "numbers"}


def settings_page(method: str) -> str:
    """The page of one method, 80 columns wide."""
    path = _config_file(method)
    config = fields_of(path)
    recipe = fields_of(ROOT / "methods" / "recipe.py", "Recipe")
    parts = [
        f"usage: monolift train {method} --data ROOT... --out DIR [--set KEY=VALUE]...",
        _wrapped(
            f"The settings of {method}: --set KEY=VALUE for each, as in --set classes=Car --set epochs=60, or the table "
            "[settings] of a --config file. Defaults are those of the preset default; --preset paper follows the publication. "
            "`monolift train --help` lists the options.",
        ),
        f"configuration of {method}",
        *_listed(config, path),
        "recipe: how it is trained",
        *_listed(recipe, path),
    ]
    return "\n\n".join(parts) + "\n"


def _config_file(method: str) -> Path:
    """The source of a method's configuration; that of a method from elsewhere is found by importing it."""
    if method in METHODS:
        return ROOT / "methods" / method / "config.py"
    return Path(inspect.getfile(get_method(method).config))


def _listed(fields: list[FieldText], path: Path) -> list[str]:
    """Each field's entry; a field that is a class of its own becomes one entry for each of its fields."""
    entries = []
    for one in fields:
        inner = _inner(one, path)
        for entry in inner or [one]:
            name = f"{one.name}.{entry.name}" if inner else entry.name
            head = f"  {name} ({_kind(entry)}"
            default = f", default {_value(entry.default)})" if entry.default else ")"
            first = textwrap.fill(head + default, WIDTH, subsequent_indent="      ", break_on_hyphens=False)
            entries.append(first + "\n" + _wrapped(entry.doc, "      "))
    return entries


def _inner(field: FieldText, path: Path) -> list[FieldText]:
    """The fields of a field's own class; none for plain values."""
    if not re.fullmatch(r"[A-Z]\w+", field.kind) or field.default:
        return []
    if field.kind == "Augmentation":
        return fields_of(ROOT / "augment" / "augmentation.py", field.kind)
    return fields_of(path, field.kind)


def _kind(field: FieldText) -> str:
    """An annotation as help says it."""
    found = re.fullmatch(r"tuple\[((?:float, )*float)\]", field.kind)
    if found:
        return f"{found[1].count('float')} numbers"
    if field.kind.startswith("tuple[tuple["):
        return "lists of numbers"
    return KINDS.get(field.kind, field.kind)


def _value(default: str) -> str:
    """A default as ``--set`` takes it; a constant of KITTI's by its value."""
    default = str(getattr(kitti_facts, default, default)) if default.isupper() else default
    text = default.replace("'", '"').removesuffix(",)")
    text = re.sub(r"^\((.*?),?\)?$", r"[\1]", text) if default.startswith("(") else text
    return {"True": "true", "False": "false", '""': "none", "[]": "none"}.get(text, text.strip('"'))


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text.replace("``", ""), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
