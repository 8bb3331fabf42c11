"""Camera calibration files of several tools, recognised by their content.

    KITTI        object (P2), tracking (keys without a colon too), odometry and raw (calib_cam_to_cam.txt: P_rect_02, S_rect_02)
    ROS          sensor_msgs/CameraInfo as YAML, as camera_calibration saves it or ``topic echo`` prints it
    OpenCV       FileStorage YAML (``%YAML:1.0``, ``!!opencv-matrix``) and JSON; M1 of a stereo pair
    RealSense    intrinsics as JSON or YAML (fx, fy, ppx, ppy, model, coeffs), and what rs-enumerate-devices -c prints
    JSON, YAML   fx, fy, cx, cy; a matrix K; Omni3D's images; Kalibr's camchain; monolift's own results
    numbers      a text file of the 4 numbers fx, fy, cx, cy, or of a matrix of 3 x 3, 3 x 4 or 4 x 4

YAML is left to PyYAML (extra monolift[ros]): one matrix has five spellings there, of which a parser of our own would sooner or
later read one wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monolift.data.camera_check import CameraNumbers
from monolift.data.formats.camera_tables import CameraFields, CameraFile, of_table
from monolift.data.formats.kitti_format import parse_calib
from monolift.errors import InputError
from monolift.files.json_text import parse_json
from monolift.files.text import decode, number, read_bytes
from monolift.files.yaml_text import parse_yaml

SUFFIXES = (".txt", ".yaml", ".yml", ".json")
"""How files in a folder of calibrations may end, in the order in which they are looked for."""
EXPECTED = (
    "a KITTI calib, a ROS camera_info, an OpenCV or RealSense camera file, or JSON with fx, fy, cx, cy or K"
)
LARGEST = 1_000_000  # characters of a file that is no JSON; Omni3D's may be large
_KITTI = re.compile(r"^[ \t]*(?:P[0-3]|P_rect_0[0-3])[ \t]*:", re.MULTILINE)
_YAML = re.compile(r"^[ \t]*(?:-[ \t]+)?[\"']?[A-Za-z_][\w./]*[\"']?[ \t]*:(?:\s|$)", re.MULTILINE)
_SECTION = re.compile(r'^[ \t]*Intrinsic of "([^"\n]+)"', re.MULTILINE)
# every run has an end, or a file of blanks would be searched again from each of them
_PRINTED = re.compile(
    r"(?:\[[ \t]{0,9})?(\d{1,6})x(\d{1,6})[ \t]{1,9}p\[(\S{1,40}) (\S{1,40})\][ \t]{1,9}f\[(\S{1,40}) (\S{1,40})\][ \t]{1,9}"
    r"([A-Za-z0-9_ -]{1,60}?)[ \t]{0,9}\[([^\]\n]{0,400})\]"
)


def read_camera_file(path: str | Path, size: tuple[int, int], name: str = "") -> CameraFile:
    """The camera of one image; ``size`` and ``name`` choose where a file holds several.

    Raises InputError, naming the file, for files that are no camera's, and MissingExtraError for YAML without PyYAML.
    """
    return parse_camera_file(read_bytes(path), str(path), size, name)


def parse_camera_file(content: str | bytes, where: str, size: tuple[int, int], name: str = "") -> CameraFile:
    """As `read_camera_file`, of the bytes of a file; ``where`` is what messages call it."""
    text = content if isinstance(content, str) else decode(content, where)
    text = text.removeprefix("\ufeff")
    start = text.lstrip()
    if not start:
        raise InputError(f"{where}: expected {EXPECTED}, got an empty file")
    if start[0] not in "{[" and len(text) > LARGEST:
        raise InputError(f"{where}: expected {EXPECTED}, got {len(text):,} characters")
    if _KITTI.search(text):
        return _kitti(text, where)
    if _SECTION.search(text):
        return _realsense_dump(text, where, size)
    if printed := _PRINTED.match(start):
        return _realsense_print(printed, where)
    if start.startswith(("{", "[")):
        return of_table(parse_json(text, where), where, size, name)
    if re.match(r"width: *\d+, ", start):  # as older pyrealsense2 prints intrinsics
        return of_table(parse_yaml("{" + start + "}", where), where, size, name)
    if numbers := _numbers_alone(text):
        return _bare_numbers(numbers, where)
    if start.startswith(("%YAML", "---")) or _YAML.search(text):
        return of_table(parse_yaml(text.expandtabs(), where), where, size, name)  # tabs that indent
    raise InputError(f"{where}: expected {EXPECTED}, got {start[:40].splitlines()[0]!r}")


# -- KITTI ------------------------------------------------------------------------------------------------------------


def _kitti(text: str, where: str) -> CameraFile:
    if re.search(r"^[ \t]*P_rect_0[0-3][ \t]*:", text, re.MULTILINE):
        return _kitti_raw(text, where)
    p2 = parse_calib(text, where).p2
    return CameraFile("calib", CameraNumbers.of_projection(p2.tolist(), f"{where}: P2"))


def _kitti_raw(text: str, where: str) -> CameraFile:
    """calib_cam_to_cam.txt: camera 2 is the left colour one, S_rect its images' size after rectification."""
    rows: dict[str, tuple[int, list[float]]] = {}
    for line, row in enumerate(text.splitlines(), 1):
        key, _, rest = row.partition(":")
        if key.strip() in ("P_rect_02", "S_rect_02"):
            place = f"{where}:{line}: {key.strip()}"
            rows[key.strip()] = line, [number(word.encode(), place) for word in rest.split()]
    if "P_rect_02" not in rows:
        raise InputError(f"{where}: expected P_rect_02, the projection of the left colour camera, got none")
    line, p = rows["P_rect_02"]
    if len(p) != 12:
        raise InputError(f"{where}:{line}: P_rect_02: expected 12 numbers, got {len(p)}")
    size = None
    if "S_rect_02" in rows:
        line, given = rows["S_rect_02"]
        if len(given) != 2 or any(v != int(v) or not 1 <= v <= 1e6 for v in given):
            raise InputError(f"{where}:{line}: S_rect_02: expected width and height in whole pixels")
        size = int(given[0]), int(given[1])
    numbers = CameraNumbers.of_projection([p[0:4], p[4:8], p[8:12]], f"{where}: P_rect_02")
    return CameraFile("calib", numbers, size)


# -- RealSense as text ------------------------------------------------------------------------------------------------


def _realsense_dump(text: str, where: str, size: tuple[int, int]) -> CameraFile:
    """The colour stream of the image's size; of its shape where no stream has that size."""
    starts = [*_SECTION.finditer(text)]
    ends = [*(m.start() for m in starts[1:]), len(text)]
    sections = [(m[1], text[m.end() : end]) for m, end in zip(starts, ends, strict=True)]
    colour = [body for name, body in sections if name.lower() in ("color", "rgb")]
    found = []
    for body in colour or [body for _, body in sections]:
        pairs = [line.partition(":") for line in body.splitlines() if ":" in line]
        fields: dict[str, Any] = {key.strip().lower(): value.strip() for key, _, value in pairs}
        for key in ("width", "height", "ppx", "ppy", "fx", "fy"):
            if key in fields:
                fields[key] = _as_number(fields[key], f"{where}: {key}")
        if "coeffs" in fields:
            words = re.split(r"[\s,]+", fields["coeffs"].strip("[] "))
            fields["coeffs"] = [_as_number(word, f"{where}: Coeffs") for word in words if word]
        fields["model"] = fields.pop("distortion", "none")
        found.append(CameraFields(fields, where).camera("RealSense intrinsics", size, sized=True))
    same = [c for c in found if c.size == size]
    shape = [c for c in found if c.size and abs(c.size[0] * size[1] - c.size[1] * size[0]) <= sum(size)]
    if not same and not shape:
        sizes = ", ".join(f"{c.size[0]} x {c.size[1]}" for c in found if c.size)
        raise InputError(f"{where}: no stream of the shape of {size[0]} x {size[1]}: found {sizes}")
    return (same or sorted(shape, key=lambda c: c.size or (0, 0)))[-1]


def _realsense_print(match: re.Match[str], where: str) -> CameraFile:
    """What ``print(profile.intrinsics)`` of pyrealsense2 writes: [ 640x480 p[cx cy] f[fx fy] MODEL [k1 k2 p1 p2 k3] ]."""
    width, height, ppx, ppy, fx, fy, model, coefficients = match.groups()
    values = zip(
        ("width", "height", "ppx", "ppy", "fx", "fy"), (width, height, ppx, ppy, fx, fy), strict=True
    )
    fields: dict[str, Any] = {key: _as_number(word, f"{where}: {key}") for key, word in values}
    fields["model"] = model
    fields["coeffs"] = [_as_number(word, f"{where}: coefficients") for word in coefficients.split()]
    return CameraFields(fields, where).camera(
        "RealSense intrinsics", (int(fields["width"]), int(fields["height"])), sized=True
    )


def _as_number(word: str, where: str) -> float | int:
    value = number(word.encode(), where)
    return int(value) if value == int(value) and abs(value) < 1e9 else value


# -- numbers alone ----------------------------------------------------------------------------------------------------


def _numbers_alone(text: str) -> list[str] | None:
    """The words of a file that holds nothing but numbers and comments."""
    lines = "\n".join(line.split("#")[0] for line in text.splitlines())
    words = [word for word in re.split(r"[\s,;]+", lines) if word]
    try:
        [float(word) for word in words[:20]]
    except ValueError:
        return None
    return words


def _bare_numbers(words: Sequence[str], where: str) -> CameraFile:
    values = [number(word.encode(), f"{where}: number {i}") for i, word in enumerate(words[:20], 1)]
    if len(values) == 4:
        fx, fy, cx, cy = values
        return CameraFile("calib", CameraNumbers(fx, fy, cx, cy))
    columns = {9: 3, 12: 4, 16: 4}.get(len(values))
    if columns is None or len(words) > 16:
        raise InputError(
            f"{where}: expected fx fy cx cy, or a matrix of 3 x 3, 3 x 4 or 4 x 4 numbers, got {len(words)} numbers"
        )
    rows: Sequence[Sequence[float]] = [values[k : k + columns] for k in range(0, len(values), columns)]
    if len(rows) == 4 and list(rows[3]) != [0, 0, 0, 1]:
        raise InputError(f"{where}: expected 0 0 0 1 as the last row of a 4 x 4 matrix, got {list(rows[3])}")
    return CameraFile("calib", CameraNumbers.of_projection(rows[:3], where))
