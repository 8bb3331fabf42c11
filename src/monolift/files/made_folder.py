"""The folder of a data set that a command makes: its note says what it holds, so that a run goes on only with its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from monolift.data.formats.kitti_format import write_atomically
from monolift.errors import InputError


def claim(root: Path, note: str, wanted: Mapping[str, Any], folders: Collection[str], kind: str) -> None:
    """Makes ``root/training``'s folders and notes ``wanted``, as JSON, in ``root/note``. kind: what it is, "synthetic world".

    Raises InputError where the folder holds something else, or another of its kind, and where it cannot be written to.
    """
    path = root / note
    try:
        if path.is_file():
            found = json.loads(path.read_text())
            if found != wanted:
                differ = ", ".join(
                    f"{k} {found.get(k)!r} there, {v!r} asked for"
                    for k, v in wanted.items()
                    if found.get(k) != v
                )
                raise InputError(
                    f"{path}: this folder holds another {kind} ({differ}): choose another folder"
                )
        elif root.is_dir() and any(root.iterdir()):
            article = "an" if kind[0] in "aeiou" else "a"
            raise InputError(f"{root}: is not empty and not {article} {kind}: choose an empty or new folder")
        for folder in folders:
            (root / "training" / folder).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets").mkdir(exist_ok=True)
        write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{root}: cannot be written to: {getattr(error, 'strerror', None) or error}"
        ) from None
