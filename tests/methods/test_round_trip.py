"""decode(encode(boxes)) == boxes for the codec of every detector: two cameras in one batch, mirrored, resized, no boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from monolift.geometry import Boxes3D, Camera, wrap
from monolift.methods.roi10d import ROI10DConfig
from monolift.methods.roi10d.codec import Lifted, ROI10DCodec
from monolift.methods.smoke import SmokeConfig
from monolift.methods.smoke.codec import SmokeCodec
from monolift.methods.ss3d import SS3DConfig
from monolift.methods.ss3d.codec import SS3DCodec
from toy_kitti import toy_boxes, toy_camera

STRIDE = 4
RoundTrip = Callable[[Boxes3D, Camera], Boxes3D]


def cells(boxes: Boxes3D, camera: Camera) -> tuple[torch.Tensor, int]:
    """The cell of each centre's projection, and the columns of the map."""
    width, height = camera.width // STRIDE, camera.height // STRIDE
    column, row = torch.round(camera.px_from_cam(boxes.center) / STRIDE).long().unbind(1)
    return row.clamp(0, height - 1) * width + column.clamp(0, width - 1), width


def smoke(boxes: Boxes3D, camera: Camera) -> Boxes3D:
    codec = SmokeCodec(SmokeConfig(classes=("Car",)))
    cell, width = cells(boxes, camera)
    label = torch.zeros_like(cell)
    return codec.decode(codec.encode(boxes, cell, label, camera, width), cell, label, camera, width)


def ss3d(boxes: Boxes3D, camera: Camera) -> Boxes3D:
    codec = SS3DCodec(SS3DConfig(classes=("Car",)))
    cell, width = cells(boxes, camera)
    channels = codec.encode(boxes, cell, camera, width)
    return codec.decode(channels, torch.zeros_like(channels), cell, camera, width).boxes


def roi10d(boxes: Boxes3D, camera: Camera) -> Boxes3D:
    codec = ROI10DCodec(ROI10DConfig(classes=("Car",)))
    roi, label = boxes.projected(camera), torch.zeros(len(boxes), dtype=torch.long)
    return codec.decode(codec.encode(Lifted.of(boxes), roi, label, camera), roi, label, camera).boxes()


@pytest.mark.parametrize("round_trip", [smoke, ss3d, roi10d], ids=["smoke", "ss3d", "roi10d"])
@pytest.mark.parametrize("seen", ["plain", "mirrored", "resized", "none"])
def test_what_is_encoded_is_decoded(round_trip: RoundTrip, seen: str) -> None:
    wide, narrow = (
        toy_camera(1242, 375),
        Camera.from_matrix([[500.0, 0, 600], [0, 500, 180], [0, 0, 1]], 1242, 375),
    )
    boxes = toy_boxes(8, np.random.default_rng(3)).to(torch.float64)
    if seen == "mirrored":
        boxes, wide, narrow = boxes.mirrored(), wide.after_mirror(), narrow.after_mirror()
    elif seen == "resized":
        wide, narrow = wide.after_resize(640, 192), narrow.after_resize(640, 192)
    elif seen == "none":
        boxes = boxes[:0]
    cameras = Camera.stack([wide, narrow])[torch.arange(len(boxes)) % 2]
    found = round_trip(boxes, cameras)
    assert len(found) == len(boxes)
    assert float((found.center - boxes.center).abs().max() if len(boxes) else 0) < 1e-3
    assert float((found.size - boxes.size).abs().max() if len(boxes) else 0) < 1e-3
    assert float(wrap(found.yaw - boxes.yaw).abs().max() if len(boxes) else 0) < 1e-3
