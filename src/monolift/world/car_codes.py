"""The shape and style of each synthetic car in a file beside its label: the numbers that it was built from.

One JSON file per image: ``{"cars": [{"row": 0, "type": "Car", "shape": {...}, "style": {...}}, ...]}``. `row` counts the
lines of the label file from 0; "shape" holds the fields of `CarShape`, "style" those of `CarStyle`. Numbers are written so that
they read back as they were: mesh, TSDF and texture come out the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from monolift.data.formats.kitti_format import KittiLabels
from monolift.errors import InputError
from monolift.files.json_text import parse_json
from monolift.files.text import read_bytes, short_name
from monolift.shapes.car_texture import CarStyle
from monolift.shapes.procedural import CarShape


@dataclass(frozen=True)
class CarCode:
    """A car of the family: all that its mesh and its texture are made from."""

    shape: CarShape
    style: CarStyle


def format_codes(labels: KittiLabels, codes: Mapping[int, CarCode]) -> str:
    """The text of a file; codes by row of the labels."""
    cars = [
        {"row": row, "type": labels.names[row], "shape": asdict(code.shape), "style": asdict(code.style)}
        for row, code in sorted(codes.items())
    ]
    return json.dumps({"cars": cars}, indent=1) + "\n"


def read_codes(path: Path) -> dict[int, CarCode]:
    """The cars of an image by row of its labels. Raises InputError for a file that `format_codes` did not write."""
    try:
        cars = parse_json(read_bytes(path), short_name(path))["cars"]
        return {int(c["row"]): CarCode(CarShape(**c["shape"]), _style(c["style"])) for c in cars}
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{short_name(path)}: expected the cars of a synthetic image as JSON, got {error or 'something else'}: "
            "make the data set anew with monolift synth --shapes"
        ) from None


def _style(fields: dict[str, object]) -> CarStyle:
    return CarStyle(**{**fields, "paint": tuple(fields["paint"])})  # type: ignore[arg-type]  # JSON knows lists only
