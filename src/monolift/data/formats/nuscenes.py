"""nuScenes' key frames of one camera, read from its JSON tables (nuscenes.org, schema_nuscenes.md of nuscenes-devkit).

Every row is found by its token; poses are a translation and a (w, x, y, z) quaternion that carry a point of the inner frame to
the outer one: sensor -> car (calibrated_sensor), car -> map (ego_pose), box -> map (sample_annotation). So a box is brought
map -> car -> camera by the inverses, with the car's pose at the moment of the image. A box's own axes are x forward along
the length, y left along the width, z up along the height; size is (width, length, height). Images are rectified: a pinhole
camera describes them whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monolift.data.formats.frames import FloatArray, Frame, FrameDataset, labels_from_columns
from monolift.errors import InputError
from monolift.files.json_text import (
    integer_of,
    list_of,
    number_of,
    numbers,
    optional,
    read_json,
    show_value,
    text_value,
    value,
)
from monolift.geometry import Boxes3D, Camera
from monolift.geometry.rotations import matrix_from_quaternion, yaw_from_matrix
from monolift.typing import Tensor

TABLES = (
    "sample_data", "sample_annotation", "calibrated_sensor", "ego_pose", "sensor", "sample", "scene", "instance",
    "category", "attribute", "visibility",
)  # fmt: skip

OCCLUSION = {"v80-100": 0, "v60-80": 1, "v40-60": 1, "v0-40": 2}
"""KITTI's level for the share that is visible, as ``data.omni3d`` has it. nuScenes counts it over all six cameras."""

CLASSES = {
    "vehicle.car": "Car",
    "vehicle.truck": "Truck",
    "vehicle.bus": "Bus",
    "vehicle.trailer": "Trailer",
    "vehicle.construction": "Construction",
    "vehicle.emergency": "Emergency",
    "human.pedestrian": "Pedestrian",
    "vehicle.bicycle": "Bicycle",
    "vehicle.motorcycle": "Motorcycle",
    "movable_object.barrier": "Barrier",
    "movable_object.trafficcone": "Traffic_cone",
}
"""By the beginning of the category's name; all others are Misc. KITTI's names where they mean the same: its Cyclist is a
bicycle with its rider, which nuScenes labels as one object with the attribute cycle.with_rider."""

LARGEST_SIDE = 1_000_000  # pixels
NEAREST = 0.1  # metres: the centre of an object must lie before the camera


class NuscenesDataset(FrameDataset):
    """Key frames of one camera as samples.

    Key frames whose image is not there are left out, since many download a part of the blobs; how many is a warning.
    Objects that no LiDAR or radar point hits are left out, as in nuScenes' own evaluation: nobody saw them when labelling.
    Truncation is the share of the projected box's area outside the image. ``Frame.group`` is the scene.
    Raises InputError for missing tables, tokens that lead nowhere, an unknown channel or scene, and where no image is there.

    Args:
        root: the folder that holds samples/ and v1.0-mini/, v1.0-trainval/ or the like.
        version: which of these; needed where there are several.
        channel: the camera.
        scenes: names of the scenes to take; all without it.
    """

    def __init__(
        self,
        root: str | Path,
        version: str | None = None,
        channel: str = "CAM_FRONT",
        scenes: Collection[str] = (),
    ) -> None:
        self.root, self.channel = Path(root), channel
        self.folder = _tables_folder(self.root, version)
        self.tables = {name: _by_token(self.folder / f"{name}.json") for name in TABLES}
        found = {
            text_value(
                value(row, "channel", f"{self.folder}: sensor {t}"), f"{self.folder}: sensor {t}: channel"
            )
            for t, row in self.tables["sensor"].items()
        }
        if channel not in found:
            raise InputError(
                f"{self.folder}: no channel {channel!r}: expected one of {', '.join(sorted(found))}"
            )
        images = [
            row
            for row in self.tables["sample_data"].values()
            if row.get("is_key_frame") and self._channel(row) == channel
        ]
        self.images = sorted(images, key=lambda row: (self._time(row), str(row["token"])))
        if not self.images:
            raise InputError(f"{self.folder}: no key frames of {channel}")
        if scenes:
            self._keep_scenes(scenes)
        self.missing = self._leave_out_missing()
        # the trainval tables have millions of sensor readings and poses: only these images' are kept in memory
        needed = {str(row.get("ego_pose_token")) for row in self.images}
        self.tables["ego_pose"] = {t: row for t, row in self.tables["ego_pose"].items() if t in needed}
        del self.tables["sample_data"]
        stems = [Path(self._file(row)).stem for row in self.images]
        unique = len(set(stems)) == len(stems)
        self.ids = tuple(stems if unique else (f"{k:06d}" for k in range(len(stems))))
        annotations = self.tables.pop("sample_annotation")
        self.of_sample: dict[str, list[dict[str, Any]]] = {}
        for row in annotations.values():
            token = value(row, "sample_token", self._where("sample_annotation", row))
            self.of_sample.setdefault(str(token), []).append(row)
        self.warnings += self._no_ground_truth(len(annotations))

    def _keep_scenes(self, names: Collection[str]) -> None:
        known = {str(self._scene(row).get("name")): None for row in self.images}
        unknown = [name for name in names if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, 3) or list(known)[:3]
            raise InputError(
                f"{self.folder}: no scene {unknown[0]!r} among {len(known)}: expected names such as {', '.join(near)}"
            )
        self.images = [row for row in self.images if str(self._scene(row).get("name")) in names]

    def _leave_out_missing(self) -> tuple[str, ...]:
        """Takes away key frames without their image; returns the files that are not there."""
        there = [(row, (self.root / self._file(row)).is_file()) for row in self.images]
        missing = tuple(self._file(row) for row, found in there if not found)
        if len(missing) == len(there):
            raise InputError(
                f"{self.root / missing[0]}: no such image, and none of the {len(there)} key frames of {self.channel} is there: "
                "unpack a part of the blobs beside the tables"
            )
        if missing:
            self.warnings += (
                f"{len(missing)} of {len(there)} key frames of {self.channel} are left out: their images are not in {self.root}"
                f" (first: {missing[0]})",
            )
        self.images = [row for row, found in there if found]
        return missing

    def _no_ground_truth(self, annotations: int) -> tuple[str, ...]:
        """Why no image has a label, if none has."""
        if not annotations:
            why = (
                "nuScenes keeps those of its test split"
                if "test" in self.folder.name
                else "the table is empty"
            )
            return (
                f"{self.folder}: no ground truth: there are no annotations ({why}), which serves detection only",
            )
        rows = [
            row for image in self.images for row in self.of_sample.get(str(image.get("sample_token")), ())
        ]
        if not rows:
            return (
                f"{self.folder}: no ground truth: none of {annotations} annotations is of these key frames",
            )
        if not any(map(self._seen, rows)):
            return (
                f"{self.folder}: no ground truth: all {len(rows)} annotations of these key frames are left out, since no LiDAR "
                "or radar point hits them",
            )
        return ()

    def frame(self, index: int) -> Frame:
        image = self.images[index]
        where = self._where("sample_data", image)
        width, height = (
            integer_of(value(image, key, where), f"{where}: {key}", 1, LARGEST_SIDE)
            for key in ("width", "height")
        )
        sensor = self._follow("calibrated_sensor", image, "calibrated_sensor_token", where)
        matrix = value(sensor, "camera_intrinsic", self._where("calibrated_sensor", sensor))
        if not isinstance(matrix, list) or len(matrix) != 3:
            raise InputError(
                f"{self._where('calibrated_sensor', sensor)}: camera_intrinsic: expected 3 x 3 numbers"
            )
        k = np.array([numbers(line, 3, self._where("calibrated_sensor", sensor)) for line in matrix])
        projection = np.hstack([k, np.zeros((3, 1))])
        ego = self._follow("ego_pose", image, "ego_pose_token", where)
        rows = self.of_sample.get(str(value(image, "sample_token", where)), ())
        objects = [row for row in rows if self._seen(row)]
        labels = self._labels(objects, self._pose("ego_pose", ego), self._pose("calibrated_sensor", sensor), projection,
                              width, height)  # fmt: skip
        scene = str(self._scene(image).get("name") or "")
        return Frame(self.ids[index], self.root / self._file(image), width, height, projection, labels, scene)

    def _seen(self, row: dict[str, Any]) -> bool:
        """Whether a LiDAR or radar point hits the object."""
        where = self._where("sample_annotation", row)
        lidar = optional(row, "num_lidar_pts", number_of, where, 1.0)
        radar = optional(row, "num_radar_pts", number_of, where, 0.0)
        return (lidar or 0) + (radar or 0) > 0

    def _scene(self, image: dict[str, Any]) -> dict[str, Any]:
        sample = self._follow("sample", image, "sample_token", self._where("sample_data", image))
        return self._follow("scene", sample, "scene_token", self._where("sample", sample))

    def _file(self, image: dict[str, Any]) -> str:
        where = self._where("sample_data", image)
        name = text_value(value(image, "filename", where), f"{where}: filename")
        if "\0" in name:
            raise InputError(f"{where}: filename: expected a path, got {show_value(name)}")
        return name

    def _time(self, image: dict[str, Any]) -> float:
        return optional(image, "timestamp", number_of, self._where("sample_data", image), 0.0) or 0.0

    def _labels(
        self,
        objects: list[dict[str, Any]],
        ego: tuple[Tensor, Tensor],
        sensor: tuple[Tensor, Tensor],
        projection: FloatArray,
        width: int,
        height: int,
    ) -> Any:
        poses = [self._pose("sample_annotation", row) for row in objects]
        map_from_box = (
            torch.stack([r for r, _ in poses]) if poses else torch.zeros(0, 3, 3, dtype=torch.float64)
        )
        center = torch.stack([t for _, t in poses]) if poses else torch.zeros(0, 3, dtype=torch.float64)
        for rotation, origin in (ego, sensor):  # map -> car -> camera
            center = (center - origin) @ rotation  # R^T v of every row v
            map_from_box = rotation.T @ map_from_box
        # The box's heading is its x axis; about the camera's y, the two frames of a box agree on it
        yaw = yaw_from_matrix(map_from_box)
        sizes = [
            numbers(value(row, "size", self._where("sample_annotation", row)), 3, "size") for row in objects
        ]
        size = torch.tensor(sizes, dtype=torch.float64).view(-1, 3)[:, [1, 2, 0]]
        boxes = Boxes3D(center, size, yaw)
        camera = Camera.from_matrix(projection, width, height)
        whole, cut = boxes.projected(camera, clip=False), boxes.projected(camera)
        area, visible = (
            (b[:, 2] - b[:, 0]).clamp_min(0) * (b[:, 3] - b[:, 1]).clamp_min(0) for b in (whole, cut)
        )
        keep = ((center[:, 2] > NEAREST) & (visible > 0)).tolist()
        rows = [k for k, kept in enumerate(keep) if kept]
        return labels_from_columns(
            [self._class(objects[k]) for k in rows],
            cut[rows].numpy(),
            center[rows].numpy(),
            size[rows].numpy(),
            yaw[rows].numpy(),
            (1 - visible / area.clamp_min(1e-9))[rows].numpy(),
            [self._occlusion(objects[k]) for k in rows],
        )

    def _class(self, annotation: dict[str, Any]) -> str:
        instance = self._follow(
            "instance", annotation, "instance_token", self._where("sample_annotation", annotation)
        )
        category = self._follow("category", instance, "category_token", self._where("instance", instance))
        name = str(category.get("name", ""))
        found = next(
            (ours for theirs, ours in CLASSES.items() if f"{name}.".startswith(f"{theirs}.")), "Misc"
        )
        where = self._where("sample_annotation", annotation)
        tokens: list[Any] = optional(annotation, "attribute_tokens", list_of, where, []) or []
        attributes = {str(self.tables["attribute"].get(str(token), {}).get("name")) for token in tokens}
        return "Cyclist" if found == "Bicycle" and "cycle.with_rider" in attributes else found

    def _occlusion(self, annotation: dict[str, Any]) -> int:
        level = self.tables["visibility"].get(str(annotation.get("visibility_token")), {}).get("level")
        return OCCLUSION.get(str(level), 3)

    def _channel(self, image: dict[str, Any]) -> Any:
        where = self._where("sample_data", image)
        calibrated = self._follow("calibrated_sensor", image, "calibrated_sensor_token", where)
        sensor = self._follow(
            "sensor", calibrated, "sensor_token", self._where("calibrated_sensor", calibrated)
        )
        return sensor.get("channel")

    def _pose(self, table: str, row: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(3, 3) rotation and (3,) translation, float64, of a row that has both."""
        where = self._where(table, row)
        rotation = numbers(value(row, "rotation", where), 4, f"{where}: rotation")
        if not any(rotation):
            raise InputError(f"{where}: rotation: expected a quaternion w, x, y, z, got zeros")
        translation = numbers(value(row, "translation", where), 3, f"{where}: translation")
        return (
            matrix_from_quaternion(torch.tensor(rotation, dtype=torch.float64)),
            torch.tensor(translation, dtype=torch.float64),
        )

    def _follow(self, table: str, row: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
        token = value(row, key, where)
        if str(token) not in self.tables[table]:
            raise InputError(f"{where}: {key} {show_value(token)} is not in {table}.json")
        return self.tables[table][str(token)]

    def _where(self, table: str, row: Mapping[str, Any]) -> str:
        return f"{self.folder.name}/{table}.json: {row.get('token', '?')}"


def is_nuscenes(root: Path) -> bool:
    """Whether a folder holds nuScenes' tables."""
    return any(root.glob("v1.0-*/sample_data.json"))


def _tables_folder(root: Path, version: str | None) -> Path:
    found = sorted(path.parent for path in root.glob("v1.0-*/sample_data.json"))
    names = ", ".join(path.name for path in found)
    if version is not None:
        if root / version not in found:
            raise InputError(f"{root}: no tables of version {version!r}: found {names or 'none'}")
        return root / version
    if len(found) != 1:
        raise InputError(
            f"{root}: expected one folder of tables such as v1.0-mini, found {names or 'none'}"
            + (": choose one by its version" if found else "")
        )
    return found[0]


def _by_token(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a table by their token. Raises InputError for a row without one and for a token that comes twice."""
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of rows with a token each, got {show_value(content)}")
    found: dict[str, dict[str, Any]] = {}
    for k, row in enumerate(content):
        token = row.get("token") if isinstance(row, dict) else None
        if not isinstance(token, str | int) or token == "":
            raise InputError(f"{path}: row {k}: expected an object with a token, got {show_value(row)}")
        if str(token) in found:
            raise InputError(f"{path}: row {k}: token {show_value(token)} comes a second time")
        found[str(token)] = row
    return found
