"""KITTI's laser scans: points in the camera frame, and as depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from monolift.data.formats.kitti_format import KittiCalib
from monolift.errors import InputError
from monolift.files.text import read_bytes
from monolift.geometry import Camera
from monolift.typing import Float, Tensor

NEAREST = 0.5  # metres in front of the camera, of a point that has a pixel


def velodyne_points(path: Path, calib: KittiCalib) -> Float[Tensor, "m 3"]:
    """A KITTI scan (float32 x, y, z, reflectance in the scanner's frame), camera frame: R0_rect Tr_velo_to_cam [X 1].

    Raises:
        InputError: for a file of another length and for a calibration without Tr_velo_to_cam.
    """
    data = read_bytes(path)
    if len(data) % 16:
        raise InputError(f"{path}: expected 16 bytes for each point, got {len(data)}")
    if "Tr_velo_to_cam" not in calib:
        raise InputError(f"{path}: its calibration has no Tr_velo_to_cam")
    points = np.frombuffer(data, dtype="<f4").reshape(-1, 4)[:, :3].astype(np.float64)
    turn, shift = np.split(calib["Tr_velo_to_cam"], [3], axis=1)
    points = points @ turn.T + shift.T
    if "R0_rect" in calib:
        points = points @ calib["R0_rect"].T
    return torch.from_numpy(points).float()


def depth_of_points(points: Float[Tensor, "m 3"], camera: Camera) -> Float[Tensor, "H W"]:
    """The depth map of points in the camera frame: z in metres at the pixel of each, of several the nearest; 0 elsewhere.

    The scanner sees round things that hide what is behind them from the camera: some points of the map lie behind what their
    pixel shows.
    """
    ahead = points[torch.isfinite(points).all(1) & (camera.depth(points) > NEAREST)]
    pixel = camera.px_from_cam(ahead).round().long()
    inside = (pixel >= 0).all(1) & (pixel[:, 0] < camera.width) & (pixel[:, 1] < camera.height)
    pixel, z = pixel[inside], ahead[inside, 2]
    depth = torch.full((camera.height * camera.width,), torch.inf)
    depth.scatter_reduce_(0, pixel[:, 1] * camera.width + pixel[:, 0], z, "amin")
    return depth.nan_to_num(posinf=0.0).view(camera.height, camera.width)
