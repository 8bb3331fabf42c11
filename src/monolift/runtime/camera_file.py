"""The camera in a word or a file: what ``detect.py`` of an exported folder is given."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

EXPECTED = "fx,fy,cx,cy in pixels, a KITTI calib file, or JSON with fx, fy, cx, cy or K (monolift itself reads ROS, OpenCV)"
_FOCAL = (("fx",), ("fy",), ("cx", "ppx"), ("cy", "ppy"))
_LARGEST = 1_000_000  # bytes of a camera file


def read_camera(text: str) -> Any:
    """The numbers of a camera as `Model.detect` takes them, from "fx,fy,cx,cy", with ",width,height" too, or from a file.

    Raises ValueError that says what was expected, and OSError for a file that cannot be read.
    """
    if "," in text and not Path(text).is_file():
        return text
    path = Path(text)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: expected {EXPECTED}, got {path.stat().st_size} bytes")
    content = path.read_bytes().decode("utf-8-sig", "replace")
    if content.lstrip().startswith("{"):
        return _of_json(content, path)
    rows = dict(re.findall(r"^[ \t]*(P2|P_rect_02|S_rect_02)[ \t]*:?[ \t]+(.*)$", content, re.MULTILINE))
    if not {"P2", "P_rect_02"} & set(rows):
        raise ValueError(f"{path}: expected {EXPECTED}, found no P2")
    key = "P_rect_02" if "P_rect_02" in rows else "P2"
    numbers = [_number(word, f"{path}: {key}") for word in rows[key].split()]
    if len(numbers) != 12:
        raise ValueError(f"{path}: {key}: expected 12 numbers, got {len(numbers)}")
    return [numbers[i : i + 4] for i in (0, 4, 8)]


def _of_json(content: str, path: Path) -> Any:
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON: expected {EXPECTED}") from None
    table = table.get("camera") if isinstance(table.get("camera"), dict) else table
    k = table.get("K")
    if isinstance(k, list):
        flat = [v for row in k for v in row] if all(isinstance(row, list) for row in k) else k
        numbers = [_number(v, f"{path}: K") for v in flat]
        if len(numbers) != 9:
            raise ValueError(f"{path}: K: expected 9 numbers, got {len(numbers)}")
        return [numbers[i : i + 3] for i in (0, 3, 6)]
    values = [next((table[n] for n in names if n in table), None) for names in _FOCAL]
    fx, fy, cx, cy = (_number(v, f"{path}: {names[0]}") for v, names in zip(values, _FOCAL, strict=True))
    size = [table.get("width"), table.get("height")]
    if None not in size:
        return [fx, fy, cx, cy, *(_number(v, f"{path}: width, height") for v in size)]
    t = table.get("translation") or [0, 0, 0]
    if not isinstance(t, list) or len(t) != 3:
        raise ValueError(f"{path}: translation: expected 3 numbers, got {str(t)[:40]!r}")
    tx, ty, tz = (_number(v, f"{path}: translation") for v in t)
    return [
        [fx, 0.0, cx, fx * tx + cx * tz],
        [0.0, fy, cy, fy * ty + cy * tz],
        [0.0, 0.0, 1.0, tz],
    ]


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a finite number, got {str(value)[:40]!r}")
    return number
