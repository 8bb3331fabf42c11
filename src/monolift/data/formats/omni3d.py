"""Omni3D's JSON (Brazil et al., CVPR 2023; the format is described in DATA.md of facebookresearch/omni3d), read and written.

Its conventions beside this project's:

- camera frame x right, y down, z forward, metres: the same; but K (3, 3) alone makes pixels. KITTI's P2 = K [I | t] looks from
  a camera that stands t beside the frame of its labels, so written centres are moved by t, and read cameras have t = 0.
- center_cam is the geometric centre; dimensions are (width, height, length).
- R_cam turns the box's own axes to the camera's; they are x along the length, y down along the height, z along the width, as
  here. Upright boxes have R_cam = R_y(yaw). The format does not say which end of the length is the front: +x is taken.
  Labels keep the yaw of boxes that are tilted; their whole rotation is the frame's, rotation_2 of a KITTI folder.
- bbox3D_cam lists the corners as (-,-,-) (+,-,-) (+,+,-) (-,+,-), then the same four with +z: not this project's order.
- bbox2D_tight, _proj and _trunc are [x1, y1, x2, y2]; -1 stands for what is unknown; valid3D false for no reliable 3D box.
- behind_camera, no 2D box at all, no LiDAR point or pixel (0), truncation of 0.99 and more and visibility of 0.01 and less mark
  annotations that are no ground truth.
- visibility is a share, KITTI's occlusion a level: 0 is 80 % and more, 1 is 40 to 80 %, 2 less, 3 unknown (-1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monolift.data.formats.coco_json import CocoTables, matrix_of, path_from
from monolift.data.formats.frames import Frame, boxes_of, has_box3d, kitti_name, labels_from_columns
from monolift.data.formats.kitti_format import KittiLabels
from monolift.errors import InputError
from monolift.files.json_text import flag_of, number_of, numbers, optional, value
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.rotations import matrix_from_yaw, yaw_from_matrix
from monolift.typing import Tensor

CORNERS = (
    (-1, -1, -1), (+1, -1, -1), (+1, +1, -1), (-1, +1, -1),
    (-1, -1, +1), (+1, -1, +1), (+1, +1, +1), (-1, +1, +1),
)  # fmt: skip
"""Signs of the corners v0 to v7 along length, height (down) and width."""
VISIBILITY = (1.0, 0.6, 0.2, -1.0)  # written for KITTI's occlusion 0, 1, 2, 3
NOTHING = ("dontcare", "ignore", "void")  # categories of regions whose content is not labelled
TRUNCATION_LIMIT, VISIBILITY_LIMIT, MAX_DEPTH_ERROR = 0.99, 0.01, 0.5  # of Omni3D's own loader, by default
TILT_DEG = 5.0  # a box that leans more is worth a word
UPRIGHT_DEG = 0.5  # a box that leans less is upright


class Omni3dDataset(CocoTables):
    """An Omni3D file and its images.

    Args:
        path: Omni3D_NAME_SPLIT.json
        root: the folder that file_path starts from, by default the file's own.

    Raises:
        InputError: naming file, table and row.
    """

    path_key = "file_path"

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        super().__init__(path, root)
        tilts: list[float] = []
        reasons: Counter[str] = Counter()
        for rows in self.of_image.values():
            for where, row in rows:
                try:
                    reasons.update(filter(None, (why_left_out(row, where) or why_ignored(row, where),)))
                    tilts += [t for t in (_tilt_deg(row, where),) if t > TILT_DEG]
                except InputError:  # a field of the wrong type is an error of its image, see frame()
                    continue
        if reasons:
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            total = sum(len(rows) for rows in self.of_image.values())
            everything = ": nothing is left" if reasons.total() == total else ""
            self.warnings += (
                f"{self.path}: {reasons.total()} of {total} annotations are no ground truth, as in Omni3D's own loader "
                f"({counts}): a region to ignore where they have a 2D box, else left out{everything}",
            )
        if tilts:
            self.warnings += (
                f"{len(tilts)} boxes lean by more than {TILT_DEG:g} degrees, up to {max(tilts):.0f}: labels keep "
                "their yaw, rotation_2 of a KITTI folder all of it (roi10d trains on that)",
            )

    def frame(self, index: int) -> Frame:
        image, width, height = self.image(index)
        row, where = self.images[index], f"{self.path}: images[{index}]"
        k = matrix_of(value(row, "K", where), f"{where}: K", 3, 3)
        projection = np.hstack([np.array(k), np.zeros((3, 1))])
        places = self.rows_of(index)
        read = [
            self._object(where, row, width, height) for where, row in places if not why_left_out(row, where)
        ]
        names, boxes2d, center, size, yaw, truncation, occlusion = (
            zip(*read, strict=True) if read else ((),) * 7
        )
        labels = labels_from_columns(names, boxes2d, center, size, yaw, truncation, occlusion)
        rotation = _rotations([place for place in places if not why_left_out(place[1], place[0])], labels)
        return Frame(self.ids[index], image, width, height, projection, labels, rotation=rotation)

    def _object(self, where: str, row: dict[str, Any], width: int, height: int) -> tuple[Any, ...]:
        name = self.category_of(row, where)
        ignored = name.lower() in NOTHING or why_ignored(row, where) is not None
        center, size, yaw = [math.nan] * 3, [-1.0] * 3, 0.0
        if not ignored and has_valid_box(row, where):
            center = numbers(value(row, "center_cam", where), 3, f"{where}: center_cam")
            w, h, l = numbers(value(row, "dimensions", where), 3, f"{where}: dimensions")
            size, yaw = [l, h, w], float(yaw_from_matrix(_rotation(row, where)))
        truncation = _number(row, "truncation", where, -1)
        return (
            "DontCare" if ignored else kitti_name(name),
            _rectangle(row, where, width, height),
            center,
            size,
            yaw,
            -1.0 if ignored else truncation,
            -1 if ignored else occlusion_level(_number(row, "visibility", where, -1)),
        )


def why_left_out(row: dict[str, Any], where: str) -> str | None:
    """Why an annotation is nowhere in its image, None if it is somewhere."""
    if optional(row, "behind_camera", flag_of, where, False):
        return "behind the camera"
    return None if _given_box(row, where) is not None else "without a 2D box"


def why_ignored(row: dict[str, Any], where: str) -> str | None:
    """Why an annotation is no ground truth, as Omni3D's own loader decides (is_ignore of cubercnn/data/datasets.py); else None.

    Rows without a reliable 3D box (valid3D false) are not meant: they are ground truth in 2D.
    """
    if _number(row, "lidar_pts", where, -1) == 0:
        return "without a LiDAR point"
    if _number(row, "segmentation_pts", where, -1) == 0:
        return "without a pixel"
    if _number(row, "depth_error", where, -1) > MAX_DEPTH_ERROR:
        return "at a doubtful depth"
    if _number(row, "truncation", where, -1) >= TRUNCATION_LIMIT:
        return "truncated"
    if 0 <= _number(row, "visibility", where, -1) <= VISIBILITY_LIMIT:
        return "occluded"
    return None


def has_valid_box(row: dict[str, Any], where: str = "annotation") -> bool:
    """Whether an annotation has a 3D box that its makers rely on."""
    size = optional(row, "dimensions", lambda v, place: numbers(v, 3, place), where, [-1.0] * 3)
    return bool(optional(row, "valid3D", flag_of, where, True)) and all(v > 0 for v in size or [-1])


def occlusion_level(visibility: float) -> int:
    """KITTI's occlusion of a visible share; negative is unknown."""
    if visibility < 0:
        return 3
    return 0 if visibility >= 0.8 else 1 if visibility >= 0.4 else 2


def _number(row: dict[str, Any], key: str, where: str, unknown: float) -> float:
    found = optional(row, key, number_of, where, unknown)
    return unknown if found is None else found


def _rotation(row: dict[str, Any], where: str) -> torch.Tensor:
    matrix = matrix_of(value(row, "R_cam", where), f"{where}: R_cam", 3, 3)
    rotation = torch.tensor(matrix, dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-2):
        raise InputError(f"{where}: R_cam: expected a rotation, got {rotation.tolist()}")
    return rotation


def _tilt_deg(row: dict[str, Any], where: str) -> float:
    """Angle between the box's own y axis and the camera's; a box standing on its head leans by 180 degrees."""
    if not has_valid_box(row, where):
        return 0.0
    return math.degrees(math.acos(max(-1.0, min(1.0, float(_rotation(row, where)[1, 1])))))


def _rotations(
    places: list[tuple[str, dict[str, Any]]], labels: KittiLabels
) -> npt.NDArray[np.float64] | None:
    """(N, 3, 3) of the rows of the labels, None where all of them stand upright."""
    known = has_box3d(labels)
    if not any(
        _tilt_deg(row, where) > UPRIGHT_DEG for (where, row), k in zip(places, known, strict=True) if k
    ):
        return None
    upright = matrix_from_yaw(torch.from_numpy(np.where(known, labels.rotation_y, 0.0))).numpy()
    found = [
        _orthonormal(_rotation(row, where).numpy()) if k else upright[i]
        for i, ((where, row), k) in enumerate(zip(places, known, strict=True))
    ]
    return np.stack(found)


def _orthonormal(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The rotation next to one that is rounded."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


def _given_box(row: dict[str, Any], where: str) -> list[float] | None:
    """The best of the three 2D boxes that there is: -1 four times stands for an unknown one."""
    for key in ("bbox2D_tight", "bbox2D_trunc", "bbox2D_proj"):
        box = optional(row, key, lambda v, place: numbers(v, 4, place) if v != [] else None, where)
        if box is not None and any(v != -1 for v in box):
            return box
    return None


def _rectangle(row: dict[str, Any], where: str, width: int, height: int) -> list[float]:
    """The best 2D box, cut to the image."""
    box = _given_box(row, where)
    if box is None:
        raise InputError(f"{where}: expected one of bbox2D_tight, bbox2D_trunc and bbox2D_proj, got none")
    limits = (width - 1, height - 1) * 2
    return [min(max(v, 0.0), float(m)) for v, m in zip(box, limits, strict=True)]


# -- writing ----------------------------------------------------------------------------------------------------------


def omni3d_tables(
    frames: Iterable[Frame], folder: Path | None = None, name: str = "monolift"
) -> dict[str, Any]:
    """Frames as Omni3D's dictionary; objects of result files also get "score".

    folder: where the file will lie, from which file_path starts; None: paths as they are. Categories are numbered in order of
    appearance, in this file only. Raises InputError for a frame without camera.
    """
    categories: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, frame in enumerate(frames):
        if frame.projection is None:
            raise InputError(
                f"{frame.image}: no camera is known and Omni3D's format needs one: give four intrinsics"
            )
        images.append(
            {
                "id": index,
                "dataset_id": 0,
                "width": frame.width,
                "height": frame.height,
                "file_path": str(frame.image) if folder is None else path_from(folder, frame.image),
                "K": frame.projection[:, :3].tolist(),
                "src_90_rotate": 0,
                "src_flagged": False,
            }
        )
        for row in _annotations(frame):
            category = categories.setdefault(row["category_name"], len(categories))
            annotations.append({"id": len(annotations), "image_id": index, "category_id": category, **row})
    return {
        "info": {"id": name, "source": 0, "name": name, "split": "", "version": "", "url": ""},
        "images": images,
        "categories": [{"id": k, "name": text, "supercategory": ""} for text, k in categories.items()],
        "annotations": annotations,
    }


def _annotations(frame: Frame) -> list[dict[str, Any]]:
    assert frame.projection is not None
    labels, known = frame.labels, has_box3d(frame.labels)
    camera = Camera.from_matrix(frame.projection, frame.width, frame.height)
    boxes = boxes_of(labels)
    # K alone must project them: the frame's origin moves into the camera
    boxes = Boxes3D(boxes.center + camera.translation, boxes.size, boxes.yaw)
    rotation = None if frame.rotation is None else torch.from_numpy(frame.rotation[known])
    intrinsics = Camera.from_matrix(frame.projection[:, :3], frame.width, frame.height)
    solid = iter(_boxes3d(boxes, matrix_from_yaw(boxes.yaw) if rotation is None else rotation, intrinsics))
    rows = []
    for i, name in enumerate(labels.names):
        occlusion = int(labels.occlusion[i])
        row = {
            "category_name": name.lower().replace("_", " "),
            "valid3D": bool(known[i]),
            "bbox2D_tight": labels.boxes2d[i].tolist(),
            **(next(solid) if known[i] else _NO_BOX),
            "visibility": VISIBILITY[occlusion] if 0 <= occlusion < 3 else -1.0,
            "truncation": float(labels.truncation[i]),
            "segmentation_pts": -1,
            "lidar_pts": -1,
            "depth_error": -1,
        }
        rows.append(row if labels.score is None else {**row, "score": float(labels.score[i])})
    return rows


_NO_BOX = {
    "bbox2D_proj": [-1] * 4,
    "bbox2D_trunc": [-1] * 4,
    "bbox3D_cam": [[-1] * 3] * 8,
    "center_cam": [-1] * 3,
    "dimensions": [-1] * 3,
    "R_cam": [[-1] * 3] * 3,
    "behind_camera": False,
}


def _boxes3d(boxes: Boxes3D, rotation: Tensor, camera: Camera) -> list[dict[str, Any]]:
    signs = torch.tensor(CORNERS, dtype=boxes.size.dtype)
    corners = (signs * boxes.size[:, None] / 2) @ rotation.transpose(-1, -2) + boxes.center[:, None]
    whole, cut = boxes.projected(camera, clip=False), boxes.projected(camera)
    return [
        {
            "bbox2D_proj": whole[i].tolist(),
            "bbox2D_trunc": cut[i].tolist(),
            "bbox3D_cam": corners[i].tolist(),
            "center_cam": boxes.center[i].tolist(),
            "dimensions": boxes.size[i, [2, 1, 0]].tolist(),
            "R_cam": rotation[i].tolist(),
            "behind_camera": bool((corners[i, :, 2] <= 0).any()),
        }
        for i in range(len(boxes))
    ]
