"""Checkpoints: a folder with config.json and model.safetensors, the Hub's layout. Nothing is ever unpickled.

config.json: {"format": 1, "method": "smoke", "config": {...}, "card": {...}}; the card says what the weights are: data,
licence, recipe, seed, AP.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from monolift.errors import InputError

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint, checked; needs no torch. Raises InputError naming the file and what is wrong."""
    path = Path(folder) / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: not a checkpoint: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint description ({error})") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path}: expected checkpoint format {FORMAT}, got {found!r}: it was written by another program or version"
        )
    for key in ("method", "config"):
        if key not in content:
            raise InputError(f"{path}: expected the key {key!r}, got {', '.join(content)}")
    return content


def read_card(folder: str | Path) -> dict[str, Any]:
    """What the weights are: data, licence, recipe, AP; empty where nobody wrote it. Needs no torch."""
    return dict(read_config(folder).get("card") or {})


def save(folder: str | Path, detector: Any, card: dict[str, Any] | None = None, half: bool = False) -> Path:
    """Writes a checkpoint; the folder appears complete or not at all. ``half``: weights as float16, for shipping."""
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {k: v.detach().cpu().contiguous() for k, v in detector.state_dict().items()}
    if half:
        state = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in state.items()}
    content = {
        "format": FORMAT,
        "method": detector.method,
        "config": dataclasses.asdict(detector.config),
        "card": card or {},
    }
    save_file(state, str(partial / WEIGHTS_FILE), metadata={"format": "pt"})
    (partial / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it unreadable for others
    (partial / CONFIG_FILE).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    replace_folder(partial, folder)
    return folder


def replace_folder(new: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an old one. A kill in between leaves the old one as FOLDER.old."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():  # else FOLDER.old is all that a kill has left: it stays until the new one stands
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: str | Path, device: str = "cpu") -> Any:
    """The detector of a checkpoint, in evaluation mode, float32.

    Raises InputError for another format, an unknown method or option, weights that do not fit, or a broken file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from monolift.methods import method_class

    folder = Path(folder)
    content = read_config(folder)
    make = method_class(content["method"])
    detector = make(_config(make.Config, content["config"], folder / CONFIG_FILE))
    path = folder / WEIGHTS_FILE
    try:
        state = load_file(str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: missing: the checkpoint is incomplete") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable weight file ({error})") from None
    expected = detector.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape] + [
        k for k in state if k not in expected
    ]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit the configuration beside it, first {wrong[0]}"
        )
    detector.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})
    return detector.to(device).eval()


def _config(kind: Any, values: Any, path: Path) -> Any:
    """The method's configuration from what JSON holds: lists become tuples, and each value must be of its default's kind."""
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected config to hold named options, got {values!r}")
    default = kind()
    values = {name: _tuples(value) for name, value in values.items()}
    for name, value in values.items():
        if name not in {f.name for f in dataclasses.fields(kind)}:
            raise InputError(f"{path}: {default.__class__.__name__} has no option {name}")
        if not _alike(value, getattr(default, name)):
            raise InputError(
                f"{path}: {name}: expected a value like {getattr(default, name)!r}, got {value!r}"
            )
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_alike(v, default[0]) for v in value if default)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
