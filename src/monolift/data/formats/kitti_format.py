"""KITTI's object text files, read and written byte for byte: labels and results, calibrations, splits.

Only numpy and the standard library are imported here. The arrays keep KITTI's own conventions (bottom centre,
h-w-l order); `monolift.data.kitti` turns them into the project's boxes. Column meanings: KITTI object
development kit, readme.

Every fault of a file is an `InputError` that starts with `folder/file:line:` and names the field.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monolift.errors import InputError
from monolift.files.folders import write_atomically
from monolift.files.text import number, read_bytes, short_name, show, split_rows, text_of

__all__ = [
    "FIELDS",
    "MAX_OCCLUSION",
    "N_LABEL",
    "N_RESULT",
    "KittiCalib",
    "KittiLabels",
    "check_row",
    "format_calib",
    "format_labels",
    "from_numbers",
    "is_integer",
    "parse_calib",
    "parse_labels",
    "read_calib",
    "read_labels",
    "read_split",
    "short_name",
    "split_rows",
    "to_numbers",
    "write_atomically",
    "write_calib",
    "write_labels",
    "write_split",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FIELDS = (
    "type", "truncated", "occluded", "alpha",
    "bbox left", "bbox top", "bbox right", "bbox bottom",
    "height", "width", "length", "x", "y", "z", "rotation_y", "score",
)  # fmt: skip
N_LABEL, N_RESULT = 15, 16
MAX_OCCLUSION = 1e9
"""Results may carry any number below this as `occluded`."""

# What KITTI writes, as a bare integer, where a value is unknown (DontCare rows; the first columns of results).
# None of them is a possible measurement, so the value alone decides the spelling.
_OCCLUDED = 1
_UNKNOWN = (-1, None, -10, None, None, None, None, -1, -1, -1, -1000, -1000, -1000, -10, None)
_INTEGER = re.compile(rb"[+-]?[0-9]{1,9}\Z")


@dataclass(frozen=True, eq=False)
class KittiLabels:
    """The rows of one label or result file, column by column; N = 0 is a file without rows.

    Frame and units are KITTI's: pixels, metres, radians, camera frame x right, y down, z forward.
    Raises InputError when the columns differ in length.
    """

    names: tuple[str, ...]
    """Class names as written: Car, Van, Truck, Pedestrian, Person_sitting, Cyclist, Tram, Misc, DontCare."""
    truncation: FloatArray
    """(N,) share of the object outside the image, 0 to 1; -1 unknown."""
    occlusion: IntArray
    """(N,) 0 visible, 1 partly, 2 largely occluded, 3 unknown; -1 in DontCare rows and results."""
    alpha: FloatArray
    """(N,) observation angle; -10 unknown."""
    boxes2d: FloatArray
    """(N, 4) left, top, right, bottom."""
    size_hwl: FloatArray
    """(N, 3) height, width, length; -1 unknown."""
    bottom: FloatArray
    """(N, 3) centre of the box's bottom face; -1000 unknown."""
    rotation_y: FloatArray
    """(N,) yaw about +y, zero facing +x; -10 unknown."""
    score: FloatArray | None = None
    """(N,) confidence, larger is surer; None in ground truth."""
    spelling: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    """The numbers of each row as they stood in the file; a word is written again where it still has the value."""

    def __post_init__(self) -> None:
        n = len(self.names)
        shapes = {
            "truncation": (n,), "occlusion": (n,), "alpha": (n,), "boxes2d": (n, 4),
            "size_hwl": (n, 3), "bottom": (n, 3), "rotation_y": (n,), "score": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name == "score":
                continue
            kind = np.int64 if name == "occlusion" else np.float64
            array = np.asarray(value, dtype=kind)
            if array.shape != shape:
                raise InputError(
                    f"KittiLabels.{name}: expected shape {shape} for {n} names, got {array.shape}"
                )
            object.__setattr__(self, name, array)
        if len(self.spelling) not in (0, n):
            raise InputError(f"KittiLabels.spelling: expected none or {n} rows, got {len(self.spelling)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def boxed(self) -> npt.NDArray[np.bool_]:
        """(N,) rows of objects with a 3D box: neither DontCare nor known in 2D only (sizes of -1)."""
        named = np.array([name.lower() != "dontcare" for name in self.names], dtype=bool)
        return named & (self.size_hwl > 0).all(1)

    def select(self, rows: Any) -> KittiLabels:
        """The rows picked by a boolean mask (N,) or by indices, in that order."""
        index = np.arange(len(self))[rows]
        spelling = tuple(self.spelling[i] for i in index) if self.spelling else ()
        return from_numbers([self.names[i] for i in index], to_numbers(self)[index], spelling)

    @staticmethod
    def empty(scored: bool = False) -> KittiLabels:
        """No rows; `scored` gives it an empty score column, as a result file has."""
        return from_numbers((), np.zeros((0, N_RESULT - 1 if scored else N_LABEL - 1)))


def from_numbers(
    names: Sequence[str], numbers: FloatArray, spelling: tuple[tuple[str, ...], ...] = ()
) -> KittiLabels:
    """Labels from the (N, 14) or, with scores, (N, 15) numbers that follow the names in a file."""
    n = np.asarray(numbers, dtype=np.float64)
    score = n[:, 14] if n.shape[1] == N_RESULT - 1 else None
    return KittiLabels(
        tuple(names),
        n[:, 0],
        n[:, 1].astype(np.int64),
        n[:, 2],
        n[:, 3:7],
        n[:, 7:10],
        n[:, 10:13],
        n[:, 13],
        score,
        spelling,
    )


def to_numbers(labels: KittiLabels) -> FloatArray:
    """The inverse of `from_numbers`: (N, 14), or (N, 15) with scores."""
    columns = [labels.truncation, labels.occlusion, labels.alpha, labels.boxes2d, labels.size_hwl]
    columns += [labels.bottom, labels.rotation_y] + ([] if labels.score is None else [labels.score])
    return np.column_stack([np.asarray(c, dtype=np.float64) for c in columns])


# --- labels and results


def read_labels(path: str | os.PathLike[str], scored: bool | None = None) -> KittiLabels:
    """Read one label or result file. `scored` as in `parse_labels`. Raises InputError for anything wrong."""
    return parse_labels(read_bytes(path), short_name(path), scored)


def parse_labels(text: str | bytes, name: str = "labels", scored: bool | None = None) -> KittiLabels:
    """Parse the text of a label file (15 fields a line) or a result file (16, the score last).

    `scored` says which of the two is wanted; None takes either, but one kind throughout. Blank lines, tabs,
    several spaces, CRLF and a missing last newline are accepted. Raises InputError, beginning with
    `name:line:`, for all else.
    """
    rows = split_rows(text, name)
    want = None if scored is None else (N_RESULT if scored else N_LABEL)
    for line, words in rows:
        check_row(words, f"{name}:{line}")
        want = want or len(words)
        if len(words) != want:
            expected = f"{want} fields" + (" with the score last" if want == N_RESULT else " without a score")
            raise InputError(f"{name}:{line}: expected {expected}, got {len(words)}")
    if not rows:
        return KittiLabels.empty(bool(scored))
    decoded = [[word.decode() for word in words] for _, words in rows]
    numbers = np.array([[*map(float, row[1:])] for row in decoded])
    return from_numbers([row[0] for row in decoded], numbers, tuple(tuple(row[1:]) for row in decoded))


def check_row(words: Sequence[bytes], where: str) -> None:
    """Raise InputError unless the fields are a row of a label or result file; `where` is `file:line`."""
    if len(words) not in (N_LABEL, N_RESULT):
        raise InputError(f"{where}: expected 15 fields (or 16 with a score), got {len(words)}")
    try:
        words[0].decode("utf-8")
        sound = all(map(math.isfinite, map(float, words[1:]))) and b"_" not in b"".join(words[1:])
    except ValueError:
        sound = False
    if not sound:
        text_of(words[0], f"{where}: type")
        for k, word in enumerate(words[1:], 1):
            number(word, f"{where}: {FIELDS[k]}")
    # Results may carry any number here: nobody reads it. In ground truth it decides the difficulty, and the
    # official program, which reads it with %d, silently loses a row that says 0.00.
    if not _INTEGER.match(words[2]) and (len(words) == N_LABEL or abs(float(words[2])) >= MAX_OCCLUSION):
        raise InputError(f"{where}: occluded: expected an integer from -1 to 3, got {show(words[2])}")


def is_integer(word: bytes) -> bool:
    """Whether a field is a plain integer, as ground truth's `occluded` has to be."""
    return bool(_INTEGER.match(word))


def format_labels(labels: KittiLabels) -> str:
    """The text of a label or result file as KITTI spells it: two decimals, bare integers for what is unknown.

    A value that needs more than two decimals gets the fewest digits that read back as the same float64, so
    `parse_labels(format_labels(x))` equals x. Values that were read and not changed since are written as they
    stood there: a file with single spaces comes out byte for byte. Raises InputError for a value that is not
    finite and for a class name that cannot stand in such a file.
    """
    lines = []
    spelling = labels.spelling or ((),) * len(labels)
    rows = zip(labels.names, to_numbers(labels).tolist(), spelling, strict=True)
    for i, (name, row, words) in enumerate(rows, 1):
        written = name.encode("utf-8", "replace")
        if written.split() != [written] or written.decode() != name:
            raise InputError(f"row {i}: type: expected a class name without white space, got {name!r}")
        if not all(map(math.isfinite, row)):
            k = [math.isfinite(value) for value in row].index(False)
            raise InputError(f"row {i}: {FIELDS[k + 1]}: expected a finite number, got {row[k]}")
        lines.append(f"{name} {' '.join(_spell(row, words))}\n")
    return "".join(lines)


def write_labels(path: str | os.PathLike[str], labels: KittiLabels) -> None:
    """Write `format_labels(labels)` atomically."""
    write_atomically(path, format_labels(labels).encode())


def _spell(row: Sequence[float], known: Sequence[str]) -> list[str]:
    """The numbers of one row: as they were read, or as KITTI would write them."""
    words = []
    for k, value in enumerate(row):
        if k < len(known) and value == (int(float(known[k])) if k == _OCCLUDED else float(known[k])):
            word = known[k]
        elif k == _OCCLUDED or value == _UNKNOWN[k]:
            word = str(int(value))
        else:
            word = f"{value:.2f}"
            if float(word) != value:
                word = np.format_float_positional(value, unique=True, min_digits=2)
        words.append(word)
    return words


# --- calibration

_SHAPES: dict[str, tuple[int, int]] = {
    "P0": (3, 4), "P1": (3, 4), "P2": (3, 4), "P3": (3, 4),
    "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4), "Tr_imu_to_velo": (3, 4),
}  # fmt: skip
_TRACKING = {"R_rect": "R0_rect", "Tr_velo_cam": "Tr_velo_to_cam", "Tr_imu_velo": "Tr_imu_to_velo"}
"""Names in the calibrations of KITTI's tracking data, and what the same matrices are called in those of the object data."""


@dataclass(frozen=True, eq=False)
class KittiCalib:
    """All matrices of one calibration file under their names there, in file order; P2 is always among them.

    P0..P3 (3, 4) project rectified camera coordinates (metres) to pixels of the four cameras, P2 to the left
    colour one; R0_rect (3, 3) rectifies; Tr_velo_to_cam and Tr_imu_to_velo (3, 4) carry points between the
    sensors. Raises InputError when P2 is missing or a matrix has another shape, is not finite, or has no
    positive focal length.
    """

    matrices: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {k: np.asarray(v, dtype=np.float64) for k, v in self.matrices.items()}
        if "P2" not in arrays:
            got = ", ".join(arrays) or "nothing"
            raise InputError(f"no P2: expected the projection of the left colour camera, got {got}")
        for name, value in arrays.items():
            shape = _SHAPES.get(name, value.shape)
            if value.shape != shape:
                raise InputError(f"{name}: expected shape {shape}, got {value.shape}")
            if not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers, got {value[~np.isfinite(value)][0]}")
        if not (arrays["P2"][0, 0] > 0 and arrays["P2"][1, 1] > 0):
            got = f"{arrays['P2'][0, 0]:g} and {arrays['P2'][1, 1]:g}"
            raise InputError(f"P2: expected positive focal lengths, got {got}")
        object.__setattr__(self, "matrices", arrays)

    def __getitem__(self, name: str) -> FloatArray:
        return self.matrices[name]

    def __contains__(self, name: object) -> bool:
        return name in self.matrices

    @property
    def p2(self) -> FloatArray:
        """(3, 4) projection of rectified camera coordinates to the left colour image."""
        return self.matrices["P2"]


def read_calib(path: str | os.PathLike[str]) -> KittiCalib:
    """Read one calibration file. Raises InputError, naming file and line, for anything wrong."""
    return parse_calib(read_bytes(path), short_name(path))


def parse_calib(text: str | bytes, name: str = "calib") -> KittiCalib:
    """Parse `NAME: numbers` lines; every matrix keeps its name and the file's order."""
    matrices: dict[str, FloatArray] = {}
    for line, words in split_rows(text, name):
        where = f"{name}:{line}"
        key = text_of(words[0], where)
        if key in _TRACKING:  # which ends only the names of its projections with a colon
            key += ":"
        if not key.endswith(":") or len(key) < 2:
            raise InputError(
                f"{where}: expected a line such as 'P2: ' followed by 12 numbers, got {show(words[0])}"
            )
        key = _TRACKING.get(key[:-1], key[:-1])
        if key in matrices:
            raise InputError(f"{where}: {key} comes a second time")
        numbers = [number(w, f"{where}: {key}, number {i}") for i, w in enumerate(words[1:], 1)]
        values = np.array(numbers, dtype=np.float64)
        shape = _SHAPES.get(key, {12: (3, 4), 9: (3, 3)}.get(len(values), (len(values),)))
        if values.size != math.prod(shape):
            raise InputError(f"{where}: {key}: expected {math.prod(shape)} numbers, got {values.size}")
        matrices[key] = values.reshape(shape)
        if key == "P2":
            _named(name, f":{line}", lambda: KittiCalib({"P2": matrices["P2"]}))
    return _named(name, "", lambda: KittiCalib(matrices))


def format_calib(calib: KittiCalib) -> str:
    """The text of a calibration file as KITTI writes it: twelve decimals, more where needed."""
    lines = [
        f"{k}: " + " ".join(map(_spell_exponent, v.ravel().tolist())) + "\n"
        for k, v in calib.matrices.items()
    ]
    return "".join(lines) + "\n"


def write_calib(path: str | os.PathLike[str], calib: KittiCalib) -> None:
    """Write `format_calib(calib)` atomically; KITTI's own files come out byte for byte as read."""
    write_atomically(path, format_calib(calib).encode())


def _spell_exponent(value: float) -> str:
    short = f"{value:.12e}"
    return short if float(short) == value else f"{value:.16e}"


def _named(name: str, line: str, make: Callable[[], KittiCalib]) -> KittiCalib:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{name}{line}: {error}") from None


# --- splits


def read_split(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The image ids of a split file, one to a line, as text (leading zeros matter).

    Raises:
        InputError: for a line with several words or a path, for an id that comes twice, and for a file without ids.
    """
    name = short_name(path)
    seen: dict[str, int] = {}
    for line, words in split_rows(read_bytes(path), name):
        image_id = text_of(words[0], f"{name}:{line}")
        if (
            len(words) != 1
            or "/" in image_id
            or "\\" in image_id
            or "\0" in image_id
            or image_id in (".", "..")
        ):
            got = b" ".join(words)[:60].decode("utf-8", "replace")
            raise InputError(f"{name}:{line}: expected one image id such as 000123, got {got!r}")
        if image_id in seen:
            raise InputError(f"{name}:{line}: {image_id} comes a second time, first in line {seen[image_id]}")
        seen[image_id] = line
    if not seen:
        raise InputError(f"{name}: expected one image id per line, got an empty file")
    return tuple(seen)


def write_split(path: str | os.PathLike[str], ids: Iterable[str]) -> None:
    """Write one id per line, atomically."""
    write_atomically(path, "".join(f"{i}\n" for i in ids).encode())
