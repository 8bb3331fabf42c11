"""The fields of configuration classes as help lists them: read from source, so that no torch is imported for it."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FieldText:
    """One field as its class is written: name, annotation and default as source text, and the docstring under it."""

    name: str
    kind: str
    default: str
    doc: str


def fields_of(path: Path, class_name: str | None = None) -> list[FieldText]:
    """The fields of a dataclass in a source file: the named one, or the one whose name ends in Config."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith(class_name or "Config"):
            return _fields(node)
    raise ValueError(f"{path}: has no configuration class")


def _fields(node: ast.ClassDef) -> list[FieldText]:
    found = []
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            doc = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                doc = " ".join(inspect.cleandoc(str(following.value.value)).split())
            kind = ast.unparse(statement.annotation)
            found.append(FieldText(statement.target.id, kind, _default(statement.value), doc))
    return found


def _default(value: ast.expr | None) -> str:
    """A default as source text; that of ``field(default=...)`` is the value inside."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        inner = {keyword.arg: keyword.value for keyword in value.keywords}
        return ast.unparse(inner["default"]) if "default" in inner else ""
    return "" if value is None else ast.unparse(value)
