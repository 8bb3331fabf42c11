"""The note in a folder of auto-labels: what it was made from, by what settings. Written by `autolabel`, read by the viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monolift.files.json_text import read_json, text_value, value

NOTE = "autolabel.json"


def is_autolabels(folder: Path) -> bool:
    """Whether `monolift autolabel` wrote this folder."""
    return (folder / NOTE).is_file()


def note_of(inputs: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The note's content, as JSON gives it back. inputs: with "data", the labelled data set."""
    return dict(json.loads(json.dumps({"inputs": inputs, **settings})))  # lists for tuples


def labelled_data(folder: Path) -> Path:
    """The data set that a folder's labels belong to. Raises InputError for a note that does not name one."""
    note = folder / NOTE
    inputs = value(read_json(note), "inputs", str(note))
    return Path(text_value(value(inputs, "data", f"{note}: inputs"), f"{note}: inputs: data"))
