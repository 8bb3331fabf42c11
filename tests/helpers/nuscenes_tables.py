"""A nuScenes folder of one image, made by hand, whose geometry can be worked out on paper.

The car stands at (100, 50) of the map and heads along the map's +y: its forward is (0, 1), its left is (-1, 0). The camera
looks forward from 1.5 m before the car's origin and 1.6 m above the ground. A point F metres ahead of the car's origin, L
metres to its left and at height Z is therefore (100 - L, 50 + F, Z) on the map and (-L, 1.6 - Z, F - 1.5) to the camera.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

S = 0.5**0.5
ALONG_Y = (S, 0.0, 0.0, S)  # headings on the map as quaternions about its z axis
ALONG_MINUS_X = (0.0, 0.0, 0.0, 1.0)
ALONG_X = (1.0, 0.0, 0.0, 0.0)
# the camera's right, down, forward are the car's -y, -z, x
CAMERA = (0.5, -0.5, 0.5, -0.5)
K = [[1000.0, 0.0, 800.0], [0.0, 1000.0, 450.0], [0.0, 0.0, 1.0]]


def annotation(
    token: str, instance: str, forward: float, left: float, up: float, size: Any, heading: Any, **more: Any
) -> Any:
    """size: (width, length, height), as in the tables."""
    return {
        "token": token,
        "sample_token": "sample",
        "instance_token": instance,
        "attribute_tokens": [],
        "visibility_token": "4",
        "translation": [100 - left, 50 + forward, up],
        "size": list(size),
        "rotation": list(heading),
        "num_lidar_pts": 5,
        "num_radar_pts": 0,
        **more,
    }


ANNOTATIONS = [
    annotation("car", "i-car", 20, 3, 0.8, (2, 4.5, 1.6), ALONG_Y, visibility_token="3"),
    annotation("walker", "i-walker", 11.5, -7.99, 0.9, (0.002, 1, 1.8), ALONG_MINUS_X, visibility_token="1"),
    annotation("rider", "i-bike", 16.5, 0, 0.85, (0.6, 1.8, 1.7), ALONG_X, attribute_tokens=["with"]),
    annotation("parked", "i-bike", 31.5, 6, 0.5, (0.6, 1.8, 1.0), ALONG_X, visibility_token=""),
    annotation("behind", "i-car", -20, 0, 0.8, (2, 4.5, 1.6), ALONG_Y),
    annotation("beside", "i-car", 5, 30, 0.8, (2, 4.5, 1.6), ALONG_Y),
    annotation("unseen", "i-car", 40, 0, 0.8, (2, 4.5, 1.6), ALONG_Y, num_lidar_pts=0),
    annotation("far", "i-car", 41.5, 5, 0.8, (2, 4.5, 1.6), ALONG_Y),
    annotation("cone", "i-cone", 25, -2, 0.4, (0.4, 0.4, 0.8), ALONG_Y),
]

TABLES: dict[str, list[dict[str, Any]]] = {
    "sensor": [
        {"token": "s-front", "channel": "CAM_FRONT", "modality": "camera"},
        {"token": "s-lidar", "channel": "LIDAR_TOP", "modality": "lidar"},
    ],
    "calibrated_sensor": [
        {"token": "c-front", "sensor_token": "s-front", "translation": [1.5, 0, 1.6], "rotation": list(CAMERA),
         "camera_intrinsic": K},
        {"token": "c-lidar", "sensor_token": "s-lidar", "translation": [0, 0, 1.8], "rotation": [1, 0, 0, 0],
         "camera_intrinsic": []},
    ],
    "ego_pose": [
        {"token": "e-front", "translation": [100, 50, 0], "rotation": list(ALONG_Y), "timestamp": 2},
        {"token": "e-lidar", "translation": [100, 49, 0], "rotation": list(ALONG_Y), "timestamp": 1},
    ],
    "sample_data": [
        {"token": "d-front", "sample_token": "sample", "ego_pose_token": "e-front", "calibrated_sensor_token": "c-front",
         "filename": "samples/CAM_FRONT/front.jpg", "width": 1600, "height": 900, "timestamp": 2, "is_key_frame": True},
        {"token": "d-sweep", "sample_token": "sample", "ego_pose_token": "e-front", "calibrated_sensor_token": "c-front",
         "filename": "sweeps/CAM_FRONT/sweep.jpg", "width": 1600, "height": 900, "timestamp": 3, "is_key_frame": False},
        {"token": "d-lidar", "sample_token": "sample", "ego_pose_token": "e-lidar", "calibrated_sensor_token": "c-lidar",
         "filename": "samples/LIDAR_TOP/scan.bin", "width": 0, "height": 0, "timestamp": 1, "is_key_frame": True},
    ],
    "sample": [{"token": "sample", "timestamp": 1, "scene_token": "scene"}],
    "scene": [{"token": "scene", "name": "scene-0001"}],
    "instance": [
        {"token": "i-car", "category_token": "g-car"},
        {"token": "i-walker", "category_token": "g-walker"},
        {"token": "i-bike", "category_token": "g-bike"},
        {"token": "i-cone", "category_token": "g-cone"},
    ],
    "category": [
        {"token": "g-car", "name": "vehicle.car"},
        {"token": "g-walker", "name": "human.pedestrian.adult"},
        {"token": "g-bike", "name": "vehicle.bicycle"},
        {"token": "g-cone", "name": "movable_object.trafficcone"},
    ],
    "attribute": [{"token": "with", "name": "cycle.with_rider"}],
    "visibility": [
        {"token": "1", "level": "v0-40"}, {"token": "2", "level": "v40-60"},
        {"token": "3", "level": "v60-80"}, {"token": "4", "level": "v80-100"},
    ],
    "sample_annotation": ANNOTATIONS,
}  # fmt: skip


def write_nuscenes(root: Path, version: str = "v1.0-mini", **changed: list[dict[str, Any]]) -> Path:
    """The folder, with some tables changed. Returns ``root``."""
    (root / version).mkdir(parents=True)
    for name, rows in {**TABLES, **changed}.items():
        (root / version / f"{name}.json").write_text(json.dumps(rows))
    (root / "samples" / "CAM_FRONT").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (1600, 900), (90, 110, 90)).save(root / "samples" / "CAM_FRONT" / "front.jpg")
    return root
