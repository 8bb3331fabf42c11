"""Scenes as JSON for the page: numbers rounded to what is shown, images, points and meshes as base64.

Everything stays in the camera frame (x right, y down, z forward; metres, radians, pixels). The page turns it once, by hanging
it all into one group that is rotated half a turn about x, because three.js's y points up.
"""

from __future__ import annotations

import base64
import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from monolift.data.sample import Objects
from monolift.data.video_frames import VideoFrames
from monolift.files.images import opened, read_rgb
from monolift.files.text import read_bytes
from monolift.geometry import Boxes3D, Camera, wrap
from monolift.geometry.iou import iou_3d
from monolift.render.draw.canvas import class_color
from monolift.render.mesh import Mesh
from monolift.typing import Float, Tensor
from monolift.viewer.scene import ImageSource, Scene, VideoFrame

LONGEST_SIDE = 1920  # pixels; larger images are reduced, boxes stay in the original's pixels
JPEG_QUALITY = 88
MOST_POINTS = 60_000  # more do not show and weigh 8 bytes each
POINT_STEP = 0.005  # metres; 16 bits then reach 163 m
FARTHEST_POINT = 120.0
PAIR_METRES = 4.0  # a label whose centre is further away is not called the same object


def encode_scene(scene: Scene) -> dict[str, Any]:
    """All the page needs to show one image. Raises InputError for an image that cannot be read."""
    image, size = _image(scene.image)
    camera = scene.camera
    if camera is not None and camera.width and camera.height:
        size = (camera.width, camera.height)
    objects = _objects(scene.objects, camera, scene.over_ground)
    labels = _objects(scene.labels, camera)
    for entry, match in zip(objects, _matches(scene.objects, scene.labels), strict=True):
        entry["match"] = match
    return {
        "name": scene.name,
        "image": image,
        "width": size[0],
        "height": size[1],
        "camera": None if camera is None else _camera(camera),
        "objects": objects,
        "labels": labels,
        "points": None if scene.points is None else _points(scene.points),
        "ground": _ground(scene),
        "warnings": list(scene.warnings),
    }


def _camera(camera: Camera) -> dict[str, float]:
    return {name: float(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy", "tx", "ty", "tz")}


def _ground(scene: Scene) -> float:
    """Height of the grid: where most boxes stand; KITTI's camera height where there are none."""
    bottoms = torch.cat([scene.objects.boxes.bottom[:, 1], scene.labels.boxes.bottom[:, 1]])
    return round(float(bottoms.median()), 3) if len(bottoms) else 1.65


# -- objects ----------------------------------------------------------------------------------------------------------------


def _objects(objects: Objects, camera: Camera | None, over_ground: bool = False) -> list[dict[str, Any]]:
    boxes = objects.boxes
    boxes2d = objects.boxes2d
    if boxes2d is None and camera is not None:
        boxes2d = boxes.projected(camera)
    distance = torch.linalg.vector_norm(boxes.center[:, [0, 2]], dim=1)
    rows = []
    for i, name in enumerate(objects.classes):
        row: dict[str, Any] = {
            "class": name,
            "color": "#{:02x}{:02x}{:02x}".format(*class_color(name)),
            "score": None if objects.scores is None else _rounded(objects.scores[i]),
            "center": _rounded(boxes.center[i]),
            "size": _rounded(boxes.size[i]),
            "yaw": _rounded(boxes.yaw[i]),
            "alpha": _rounded(boxes.alpha[i]),
            "distance": _rounded(distance[i]),
            "box2d": None if boxes2d is None else _rounded(boxes2d[i]),
        }
        if objects.tracks is not None:
            row["track"] = int(objects.tracks[i])
        if objects.velocity is not None:
            row["speed"] = _rounded(objects.velocity[i].norm())
            row["relative"] = not over_ground
        if objects.covariance is not None:
            row["sigma"] = _sigma(objects.covariance[i], boxes.size[i])
        if objects.meshes is not None and (mesh := objects.meshes[i]) is not None:
            row["mesh"] = _mesh(mesh)
        rows.append(row)
    return rows


def _sigma(covariance: Float[Tensor, "7 7"], size: Float[Tensor, " 3"]) -> dict[str, Any]:
    """One standard deviation of every number shown, and the matrix that turns the unit ball into the centre's ellipsoid;
    None where the method does not know.

    Sizes are learnt as logarithms: sigma of a length is that of its logarithm times the length, to first order.
    """
    c = covariance.double()
    deviation = c.diagonal().clamp_min(0).sqrt()
    place = (c[:3, :3] + c[:3, :3].T) / 2
    known = bool(place.isfinite().all())
    values, vectors = torch.linalg.eigh(place if known else torch.zeros_like(place))
    return {
        "center": _rounded(deviation[:3]),
        "size": _rounded(deviation[3:6] * size.double()),
        "yaw": _rounded(deviation[6]),
        "ellipsoid": _rounded((vectors * values.clamp_min(0).sqrt()).flatten()) if known else None,
    }


def _matches(objects: Objects, labels: Objects) -> list[dict[str, Any] | None]:
    """For every object the label it overlaps most, or else the nearest within PAIR_METRES; a label may serve twice."""
    if not len(objects) or not len(labels):
        return [None] * len(objects)
    a, b = (_double(boxes) for boxes in (objects.boxes, labels.boxes))
    overlap, apart = iou_3d(a, b), torch.cdist(a.center, b.center)
    best = torch.where(overlap.amax(1) > 0, overlap.argmax(1), apart.argmin(1)).tolist()
    return [
        {
            "label": k,
            "iou": _rounded(overlap[i, k]),
            "apart": _rounded(apart[i, k]),
            "turned": _rounded(wrap(a.yaw[i] - b.yaw[k]).abs()),
        }
        if apart[i, k] <= PAIR_METRES
        else None
        for i, k in enumerate(best)
    ]


def _double(boxes: Boxes3D) -> Boxes3D:
    return boxes.to("cpu", torch.float64)


# -- images, points, meshes -----------------------------------------------------------------------------------------------


def _image(image: ImageSource) -> tuple[str | None, tuple[int, int]]:
    """A data URI and the image's full (width, height)."""
    if image is None:
        return None, (0, 0)
    if isinstance(image, VideoFrame):
        image = _video(image.path).at(image.time)
    if isinstance(image, torch.Tensor):
        return _jpeg(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()))
    name = str(image) if isinstance(image, Path) else "image"
    source = image if isinstance(image, Path) else bytes(image)
    with opened(source, name) as file:
        file.load()  # one that is cut short is named here, not left blank on the page
        turned = file.getexif().get(ExifTags.Base.Orientation, 1) != 1
        # A file every browser can show goes in as it is; a PNG image is a fifth of its size as JPEG.
        whole = file.format == "JPEG" and file.mode == "RGB" and not turned and _fits(file)
        size = file.size
    if whole:
        return _data_uri("image/jpeg", read_bytes(source) if isinstance(source, Path) else source), size
    return _jpeg(Image.fromarray(read_rgb(source, name).pixels))


@lru_cache(4)
def _video(path: Path) -> VideoFrames:
    """The open video; a few of them."""
    return VideoFrames(path)


def _fits(image: Image.Image) -> bool:
    return max(image.size) <= LONGEST_SIDE


def _jpeg(image: Image.Image) -> tuple[str, tuple[int, int]]:
    size = image.size
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=JPEG_QUALITY)
    return _data_uri("image/jpeg", data.getvalue()), size


def _points(points: Float[Tensor, "m 3"]) -> dict[str, Any]:
    """Those within reach, thinned evenly, as little-endian 16-bit steps."""
    xyz = points.cpu().numpy().astype(np.float64)
    xyz = xyz[np.isfinite(xyz).all(1) & (np.abs(xyz) <= FARTHEST_POINT).all(1)]
    if len(xyz) > MOST_POINTS:
        xyz = xyz[np.linspace(0, len(xyz) - 1, MOST_POINTS).astype(int)]
    steps = np.round(xyz / POINT_STEP).astype("<i2")
    return {"step": POINT_STEP, "data": _base64(steps.tobytes())}


def _mesh(mesh: Mesh) -> dict[str, Any]:
    vertices = mesh.vertices.detach().cpu().numpy()
    entry: dict[str, Any] = {
        "vertices": _base64(vertices.astype("<f4").tobytes()),
        "faces": _base64(mesh.faces.cpu().numpy().astype("<u4").tobytes()),
    }
    if mesh.uvs is not None and mesh.texture is not None and mesh.texture.shape[0] == 3:
        entry["uvs"] = _base64(mesh.uvs.detach().cpu().numpy().astype("<f4").tobytes())
        pixels = mesh.texture.detach().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        entry["texture"] = _data_uri("image/png", data.getvalue())
    return entry


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{_base64(data)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _rounded(value: Tensor) -> Any:
    """Tenths of a millimetre; a number that is not finite has no place in JSON and becomes null."""
    if value.ndim:
        return [_rounded(v) for v in value]
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None
