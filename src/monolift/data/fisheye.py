"""Fisheye cameras: images rectified to a pinhole camera, in which straight lines are straight and boxes are boxes.

A pixel's distance from the principal point is a function of the angle theta between its ray and straight ahead:

    kannala_brandt   theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8): J. Kannala, S. Brandt, A generic camera
                     model (PAMI 2006), as OpenCV's fisheye module, Kalibr ("equidistant") and ROS have it
    fov              atan(2 tan(theta) tan(w / 2)) / w: F. Devernay, O. Faugeras, Straight lines have to be straight (MVA 2001),
                     as Kalibr and ORB-SLAM ("fov", "atan") have it
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monolift.data.camera_check import CameraNumbers
from monolift.data.formats.camera_tables import DEEPEST, CameraFields
from monolift.errors import InputError
from monolift.files.json_text import parse_json
from monolift.files.text import read_text
from monolift.files.yaml_text import parse_yaml
from monolift.geometry import Camera
from monolift.typing import Float, Tensor, UInt8

KANNALA_BRANDT = ("equidistant", "equi", "fisheye", "kannala_brandt", "kannala_brandt4")
FOV = ("fov", "atan")
LEAST_FOV, MOST_FOV = 20.0, 119.0  # degrees of a rectified image: wider ones stretch the border beyond use


@dataclass(frozen=True)
class Fisheye:
    """A calibrated fisheye camera.

    Attributes:
        numbers: focal lengths and principal point, pixels
        width, height: of its images, pixels
        model: kannala_brandt or fov
        coefficients: k1 to k4, or w
    """

    numbers: CameraNumbers
    width: int
    height: int
    model: str
    coefficients: tuple[float, ...]

    def px_from_cam(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
        """Pixels of points (x right, y down, z forward, z > 0)."""
        x, y, z = points.double().unbind(-1)
        flat = torch.hypot(x, y)
        theta = torch.atan2(flat, z)
        scale = torch.where(flat > 1e-12, self.radius(theta) / flat.clamp_min(1e-12), 1 / z)
        u = self.numbers.fx * scale * x + self.numbers.cx
        v = self.numbers.fy * scale * y + self.numbers.cy
        return torch.stack([u, v], -1)

    def radius(self, theta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Distance from the principal point in focal lengths of rays at an angle ``theta`` from straight ahead, radians."""
        if self.model == "fov":
            (w,) = self.coefficients
            return torch.atan(2 * torch.tan(theta) * math.tan(w / 2)) / w
        k1, k2, k3, k4 = self.coefficients
        t = theta * theta
        return theta * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))

    def pinhole(self, fov: float) -> Camera:
        """The camera of the rectified images: of the same size, ``fov`` degrees wide, principal point in the middle.

        Raises:
            InputError: for a field of view that is no use.
        """
        if not LEAST_FOV <= fov <= MOST_FOV:
            raise InputError(
                f"fov: expected {LEAST_FOV:g} to {MOST_FOV:g} degrees of a flat image, got {fov:g}"
            )
        focal = self.width / 2 / math.tan(math.radians(fov) / 2)
        return Camera(
            focal, focal, (self.width - 1) / 2, (self.height - 1) / 2, width=self.width, height=self.height
        )

    def rectified(self, image: UInt8[Tensor, "3 H W"], camera: Camera) -> UInt8[Tensor, "3 h w"]:
        """An image as ``camera`` would have taken it, bilinear; black where this camera does not see.

        Raises:
            InputError: for an image of another size.
        """
        if (image.shape[2], image.shape[1]) != (self.width, self.height):
            raise InputError(
                f"expected an image of {self.width} x {self.height} as it was calibrated, "
                f"got {image.shape[2]} x {image.shape[1]}"
            )
        v, u = torch.meshgrid(
            torch.arange(camera.height, dtype=torch.float64),
            torch.arange(camera.width, dtype=torch.float64),
            indexing="ij",
        )
        rays = torch.stack(
            [(u - float(camera.cx)) / float(camera.fx), (v - float(camera.cy)) / float(camera.fy)], -1
        )
        px = self.px_from_cam(torch.cat([rays, torch.ones_like(rays[..., :1])], -1))
        span = torch.tensor([self.width - 1, self.height - 1], dtype=torch.float64)
        grid = (2 * px / span - 1).float()
        taken = torch.nn.functional.grid_sample(image[None].float(), grid[None], align_corners=True)
        return taken[0].round().clamp(0, 255).to(torch.uint8)


def read_fisheye(path: str | Path) -> Fisheye:
    """The fisheye camera of a JSON or YAML file: Kalibr's, OpenCV's, ROS camera_info.

    Raises:
        InputError: for a file without a fisheye model, naming what is missing.
        MissingExtraError: for YAML without PyYAML.
    """
    where, text = str(path), read_text(Path(path))
    content = (
        parse_json(text, where) if text.lstrip()[:1] in ("{", "[") else parse_yaml(text.expandtabs(), where)
    )
    fields = _fields(content, where)
    model = (
        str(fields.any_of("distortion_model", "model") or fields.any_of("camera_model") or "")
        .lower()
        .replace("-", "_")
    )
    if model not in (*KANNALA_BRANDT, *FOV):
        raise InputError(
            f"{where}: distortion_model: expected a fisheye's, {', '.join((*KANNALA_BRANDT, *FOV))}, got {model[:40] or 'none'}"
        )
    size = fields.size(required=True)
    assert size is not None
    coefficients = fields.coefficients(required=True)
    kind = "fov" if model in FOV else "kannala_brandt"
    count = 1 if kind == "fov" else 4
    if len(coefficients) != count:
        raise InputError(f"{where}: {model}: expected {count} coefficients, got {len(coefficients)}")
    if kind == "fov" and not 0.01 < coefficients[0] < math.pi - 0.01:
        raise InputError(f"{where}: fov: expected an angle from 0.01 to pi, got {coefficients[0]:g}")
    found = Fisheye(fields.numbers(), *size, kind, tuple(coefficients))
    steps = found.radius(torch.linspace(0, math.radians(MOST_FOV) / 2, 50, dtype=torch.float64))
    if not bool((steps.diff() > 0).all()):
        raise InputError(
            f"{where}: the coefficients {coefficients} fold the image within {MOST_FOV:g} degrees"
        )
    return found


def _fields(content: Any, where: str) -> CameraFields:
    """The innermost fields that hold a camera."""
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        fields = CameraFields(content, where)
        if fields.has_matrix or fields.has_numbers:
            return fields
        inner = [value for value in content.values() if isinstance(value, Mapping)]
        if not inner:
            break
        content = inner[0]
    raise InputError(
        f"{where}: expected the intrinsics of a camera (K, camera_matrix, intrinsics, or fx, fy, cx, cy)"
    )
