"""A training described by a TOML or YAML file: what ``--config`` reads, and what every run folder keeps as run.toml.

method = "smoke"
data = ["KITTI"]
split = "train.txt"

[settings]
epochs = 60
augmentation.mirror = 0.0
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from monolift.errors import InputError
from monolift.files.json_text import read_json
from monolift.files.settings import changed
from monolift.files.text import read_text
from monolift.files.yaml_text import read_yaml

LARGEST = 1_000_000  # bytes


@dataclass(frozen=True)
class RunFile:
    """One training as text: everything but the settings is as on the command line, None where nothing is said."""

    method: str | None = None
    """smoke, ss3d or roi10d."""
    preset: str | None = None
    """Configuration and recipe to start from."""
    data: tuple[str, ...] = ()
    """KITTI folders; relative paths count from the working directory, as on the command line."""
    split: str | None = None
    """File of training ids of the first folder."""
    val_split: str | None = None
    """File of validation ids of the first folder."""
    init: str | None = None
    """Weights to start from."""
    init_partial: bool | None = None
    """Accept a checkpoint that fills less than half of the weights."""
    out: str | None = None
    """The run's folder."""
    seed: int | None = None
    """Random seed."""
    device: str | None = None
    """cpu, cuda or auto."""
    devices: int | None = None
    """Processes on this machine."""
    workers: int | None = None
    """Loader processes per device."""
    val_every: int | None = None
    """Epochs between validations."""
    save_minutes: float | None = None
    """A checkpoint is written at least this often."""
    tensorboard: bool | None = None
    """Also write TensorBoard events."""
    measure: bool | None = None
    """Whether the constants that no setting names are measured on the training data."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the preset's configuration and recipe; they take precedence over what is measured."""


def read_run_file(path: str | Path) -> RunFile:
    """The description in a .toml, .yaml, .yml or .json file. Raises InputError naming the file and the entry that is wrong."""
    path = Path(path)
    content = _content(path)
    if isinstance(content.get("data"), str):
        content = {**content, "data": [content["data"]]}
    if not isinstance(content.get("settings", {}), Mapping):
        raise InputError(f"{path}: settings: expected named values, got {content['settings']!r}")
    return changed(RunFile(), content, f"{path}: ")


def _content(path: Path) -> Mapping[Any, Any]:
    readers: dict[str, Callable[[Path], Any]] = {
        ".toml": _toml,
        ".yaml": read_yaml,
        ".yml": read_yaml,
        ".json": read_json,
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected .toml, .yaml, .yml or .json, got {path.suffix or 'no suffix'}")
    content = readers[path.suffix.lower()](path)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: expected named entries (method = ..., data = ...), got {type(content).__name__}"
        )
    return content


def _toml(path: Path) -> Any:
    text = read_text(path, LARGEST)
    try:
        import tomllib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            raise InputError(
                f"{path}: this Python reads TOML with the package tomli only: pip install tomli, or write YAML or JSON"
            ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML: {error or 'nested too deeply'}") from None


def format_run_file(run: RunFile) -> str:
    """The description as TOML, which `read_run_file` reads back."""
    lines = []
    for one in fields(run):
        value = getattr(run, one.name)
        if one.name != "settings" and value is not None and value != ():
            lines.append(f"{one.name} = {_toml_value(value)}")
    rows = [f"{name} = {_toml_value(value)}" for name, value in _flat(run.settings)]
    return "\n".join(lines + (["", "[settings]", *rows] if rows else [])) + "\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)
